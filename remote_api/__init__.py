"""The HTTPS API and its clients: it translates requests and holds no state that matters."""
