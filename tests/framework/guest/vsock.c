/* The guest's end of a conversation with its host over vsock, which needs no network. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void answer(int listener)
{
    struct timeval limit = {.tv_sec = 60};
    char line[200] = "";
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int channel = accept(listener, NULL, NULL);
    if (channel < 0) {
        say("vsock nobody came: %s", strerror(errno));
        return;
    }
    setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t count = recv(channel, line, sizeof line - 1, 0);
    line[count > 0 ? count : 0] = 0;
    line[strcspn(line, "\n")] = 0;
    dprintf(channel, "the guest heard: %s\n", line);
    close(channel);
    say("vsock heard: %s", line);
}

void listen_to_host(int port)
{
    unsigned int cid = 0;
    struct sockaddr_vm here = {
        .svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY};
    int device = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    if (device < 0 || ioctl(device, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid)) {
        say("vsock: %s", strerror(errno));
        return;
    }
    close(device);
    int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1)) {
        say("vsock: %s", strerror(errno));
        close(listener);
        return;
    }
    say("vsock cid %u listens", cid);
    if (!fork()) {
        answer(listener);
        _exit(0);
    }
    close(listener);
}
