/* What the parts of the guest's init share. */
#ifndef MICA_GUEST_H
#define MICA_GUEST_H

#include <stddef.h>
#include <stdint.h>

/* Print one line on the serial line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Read a small file as text; the number of octets that were read. */
size_t read_text(const char *path, char *into, size_t size);

/* Say what hardware there is; the last line is `hardware done`. */
void hardware(void);

/* Start the watchdog, which then bites after so many seconds. */
void watchdog(int seconds);

/* Ask DHCP for an address of an interface, set it, and say so; of any where none is named. */
void network(const char *interface);

/* Send a frame, given in hex, as it is. */
void send_frame(const char *interface, const char *hex);

/* Keep the frames that come in from now on. */
void listen_for_frames(const char *interface);

/* Say how many of the frames kept since the last call hold these octets, and forget them. */
void tell_heard(const char *hex);

/* Connect by TCP, and print the first line that comes. */
void fetch(const char *address, int port);

/* Read or write a disk (or a file, by its whole path), and say how long that took. */
void speed(const char *name, const char *what, const char *order, uint64_t block, uint64_t length,
           uint64_t requests);

/* Be another program, where this one was started under its name; -1 where it was not. */
int other_program(const char *path);

/* Start QEMU's guest agent, and say `agent PROCESS`. */
void start_agent(void);

/* Send a signal to a process. */
void send_signal(int process, int number);

/* Mount a disk on /mnt. */
void mount_disk(const char *disk, const char *kind);

/* Write a line to the end of a file on the mounted disk, and flush it. */
void append(const char *text);

/* Set the clock to so many seconds since the epoch, where they aren't 0, and say what it shows. */
void tell_time(long long seconds);

/* Take note of the children that have ended. */
void bury(void);

/* Connect by TCP, and say how many octets came until the end. */
void drain(const char *address, int port);

/* Wait for one line over vsock, answer it, and say it; meanwhile go on. */
void listen_to_host(int port);

#endif
