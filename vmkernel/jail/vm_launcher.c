/*
 * The start program of a virtual machine's unit: receives descriptors and a command line over a
 * Unix socket, and becomes QEMU.
 *
 * A tap, a vhost descriptor and the listening sockets of a VM are opened by vmkernel, which may;
 * QEMU, jailed by systemd, may not. systemd itself hands only sockets and files to a unit, and
 * QEMU's own `getfd` is refused before its machine is built. So the unit starts this program,
 * with a connection to vmkernel as descriptor 3 (OpenFile=), already under the unit's user,
 * namespaces and limits, and under a filter of what it and its programs need together.
 *
 * message = magic, beside, argc, length, beside's filter, filter (6 numbers of 4 octets, host
 *           order), then `length` octets of words, then as many instructions (of 8 octets) as the
 *           filters have, beside's first.
 *           There are beside + argc words, each ended by a zero octet. The first `beside` words,
 *           if any, are the command line of a program that runs beside QEMU in the same jail (the
 *           TPM's emulator); the others are QEMU's. Each begins with the program's path.
 *           A filter is the list of system calls of one program (vmkernel/jail/roles/), compiled;
 *           it is put on right before the program starts. No program starts without.
 *           With the first octet come the descriptors. They get the numbers 4, 5, … here; the
 *           first of them becomes stdout and stderr, the rest keep their numbers in QEMU, but for
 *           the last where there is a program beside it: that is this program's only one, 3.
 *
 * Exit codes: 70 a bad message or no message, 71 the program can't be started as it must be.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINK = 3, FIRST = 4, FDS_MAX = 64, ARGS_MAX = 2048, LENGTH_MAX = 1 << 20 };
enum { MAGIC_AT, BESIDE_AT, ARGC_AT, LENGTH_AT, BESIDE_FILTER_AT, FILTER_AT, NUMBERS };
static const uint32_t MAGIC = 0x6d696361;

static void fail(int code, const char *what)
{
	dprintf(STDERR_FILENO, "vm-launcher: %s\n", what);
	_exit(code);
}

static void read_all(void *buffer, size_t length)
{
	char *at = buffer;

	while (length > 0) {
		ssize_t count = read(LINK, at, length);

		if (count <= 0)
			fail(70, "the message is cut off");
		at += count;
		length -= (size_t)count;
	}
}

static int receive_header(uint32_t header[NUMBERS])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control;
	struct iovec data = { .iov_base = header, .iov_len = NUMBERS * sizeof(header[0]) };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t count = recvmsg(LINK, &message, 0);
	struct cmsghdr *part = CMSG_FIRSTHDR(&message);
	int fds = 0;

	if (count <= 0)
		fail(70, "no message came");
	if (message.msg_flags & MSG_CTRUNC)
		fail(70, "too many descriptors");
	if (part && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
		fds = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (int i = 0; i < fds; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + (size_t)i * sizeof(int), sizeof(fd));
			if (fd != FIRST + i)
				fail(70, "a descriptor has an unexpected number");
		}
	}
	read_all((char *)header + count, NUMBERS * sizeof(header[0]) - (size_t)count);
	return fds;
}

static struct sock_fprog read_filter(uint32_t length)
{
	struct sock_fprog filter = { .len = (unsigned short)length };

	if (length == 0 || length > BPF_MAXINSNS)
		fail(70, "a filter is missing or too long");
	filter.filter = calloc(length, sizeof(*filter.filter));
	if (!filter.filter)
		fail(70, "no memory");
	read_all(filter.filter, length * sizeof(*filter.filter));
	return filter;
}

static void become(char *const argv[], char *const environment[], const struct sock_fprog *filter)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter, 0, 0) < 0)
		fail(71, "the filter can't be put on");
	execve(argv[0], argv, environment);
	fail(71, "the program can't be started");
}

static void start_beside(char *const argv[], char *const environment[], int last,
			 const struct sock_fprog *filter)
{
	pid_t child = fork();

	if (child < 0)
		fail(71, "no process for the program beside QEMU");
	if (child > 0) {
		close(last);
		return;
	}
	if (dup2(FIRST, STDOUT_FILENO) < 0 || dup2(FIRST, STDERR_FILENO) < 0 || dup2(last, LINK) < 0)
		fail(70, "the descriptors of the program beside QEMU can't be used");
	close_range(FIRST, ~0U, 0);
	become(argv, environment, filter);
}

int main(void)
{
	static char *words[ARGS_MAX + 2];
	static char *environment[] = { "LANG=C.UTF-8", "PATH=/usr/bin", NULL };
	uint32_t header[NUMBERS];
	uint32_t beside, count;
	struct sock_fprog filter, beside_filter;
	char *text, *at;
	int fds = receive_header(header);

	if (fds < 1)
		fail(70, "no descriptors came");
	beside = header[BESIDE_AT];
	if (header[MAGIC_AT] != MAGIC || header[ARGC_AT] == 0 || header[ARGC_AT] > ARGS_MAX ||
	    beside > ARGS_MAX - header[ARGC_AT] || (beside > 0 && fds < 2) ||
	    header[LENGTH_AT] == 0 || header[LENGTH_AT] > LENGTH_MAX)
		fail(70, "the message can't be understood");
	count = beside + header[ARGC_AT];
	text = malloc(header[LENGTH_AT]);
	if (!text)
		fail(70, "no memory");
	read_all(text, header[LENGTH_AT]);
	if (text[header[LENGTH_AT] - 1] != '\0')
		fail(70, "the last word is not ended");
	at = text;
	for (uint32_t i = 0; i < count; i++) {
		if (at >= text + header[LENGTH_AT])
			fail(70, "words are missing");
		/* A null pointer ends the command line of the program beside QEMU. */
		words[i < beside ? i : i + 1] = at;
		at += strlen(at) + 1;
	}
	if (beside > 0)
		beside_filter = read_filter(header[BESIDE_FILTER_AT]);
	filter = read_filter(header[FILTER_AT]);
	if (beside > 0)
		start_beside(words, environment, FIRST + fds - 1, &beside_filter);
	if (dup2(FIRST, STDOUT_FILENO) < 0 || dup2(FIRST, STDERR_FILENO) < 0)
		fail(70, "the log can't be used");
	close(FIRST);
	close(LINK);
	become(words + beside + 1, environment, &filter);
}
