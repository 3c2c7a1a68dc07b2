/*
 * The start program of a virtual machine's unit: receives descriptors and a command line over a
 * Unix socket, and becomes QEMU.
 *
 * A tap, a vhost descriptor and the listening sockets of a VM are opened by vmkernel, which may;
 * QEMU, jailed by systemd, may not. systemd itself hands only sockets and files to a unit, and
 * QEMU's own `getfd` is refused before its machine is built. So the unit starts this program,
 * with a connection to vmkernel as descriptor 3 (OpenFile=), already under the unit's user,
 * namespaces, seccomp filter and limits.
 *
 * message = magic, argc, length (3 numbers of 4 octets, host order), then `length` octets: argc
 *           words, each ended by a zero octet; the first is the program's path.
 *           With the first octet come the descriptors. They get the numbers 4, 5, … here; the
 *           first of them becomes stdout and stderr, the rest keep their numbers in QEMU.
 *
 * Exit codes: 70 a bad message or no message, 71 the program can't be started.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINK = 3, FIRST = 4, FDS_MAX = 64, ARGS_MAX = 2048, LENGTH_MAX = 1 << 20 };
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

static int receive_header(uint32_t header[3])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control;
	struct iovec data = { .iov_base = header, .iov_len = 3 * sizeof(header[0]) };
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
	read_all((char *)header + count, 3 * sizeof(header[0]) - (size_t)count);
	return fds;
}

int main(void)
{
	static char *argv[ARGS_MAX + 1];
	static char *environment[] = { "LANG=C.UTF-8", "PATH=/usr/bin", NULL };
	uint32_t header[3];
	char *text, *at;

	if (receive_header(header) < 1)
		fail(70, "no descriptors came");
	if (header[0] != MAGIC || header[1] == 0 || header[1] > ARGS_MAX ||
	    header[2] == 0 || header[2] > LENGTH_MAX)
		fail(70, "the message can't be understood");
	text = malloc(header[2]);
	if (!text)
		fail(70, "no memory");
	read_all(text, header[2]);
	if (text[header[2] - 1] != '\0')
		fail(70, "the last word is not ended");
	at = text;
	for (uint32_t i = 0; i < header[1]; i++) {
		if (at >= text + header[2])
			fail(70, "words are missing");
		argv[i] = at;
		at += strlen(at) + 1;
	}
	if (dup2(FIRST, STDOUT_FILENO) < 0 || dup2(FIRST, STDERR_FILENO) < 0)
		fail(70, "the log can't be used");
	close(FIRST);
	close(LINK);
	execve(argv[0], argv, environment);
	fail(71, "the program can't be started");
}
