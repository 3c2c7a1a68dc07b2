"""The API's resources: their routes and handlers, which decide nothing; the vmkernel does."""
