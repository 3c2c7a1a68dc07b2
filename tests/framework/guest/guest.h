/* What the parts of the guest's init share. */
#ifndef MICA_GUEST_H
#define MICA_GUEST_H

/* Print one line on the serial line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ask DHCP for an address of the first interface, set it, and say so. */
void network(void);

/* Connect by TCP, and print the first line that comes. */
void fetch(const char *address, int port);

#endif
