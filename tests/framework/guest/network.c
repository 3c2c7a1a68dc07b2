/* The guest's network: a DHCP client and a TCP client, by the kernel's own interfaces. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct dhcp {
    uint8_t op, htype, hlen, hops;
    uint32_t xid;
    uint16_t secs, flags;
    uint32_t ciaddr, yiaddr, siaddr, giaddr;
    uint8_t chaddr[16], sname[64], file[128];
    uint32_t cookie;
    uint8_t options[312];
} __attribute__((packed));

struct datagram {
    struct iphdr ip;
    struct udphdr udp;
    struct dhcp dhcp;
} __attribute__((packed));

struct lease {
    uint32_t address, mask, router, server;
    int type;
};

static uint16_t checksum(const void *data, size_t length)
{
    const uint8_t *bytes = data;
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i += 2)
        sum += bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons(~sum);
}

static void dhcp_send(int channel, int interface, const uint8_t *mac, int type,
                      const struct lease *offer)
{
    struct datagram packet = {0};
    struct dhcp *message = &packet.dhcp;
    message->op = message->htype = 1;
    message->hlen = 6;
    message->xid = htonl(0x4d696361);
    message->flags = htons(0x8000); /* answer by broadcast: no address is set yet */
    memcpy(message->chaddr, mac, 6);
    message->cookie = htonl(0x63825363);
    uint8_t *option = message->options;
    *option++ = 53, *option++ = 1, *option++ = type;
    if (offer) {
        *option++ = 50, *option++ = 4, memcpy(option, &offer->address, 4), option += 4;
        *option++ = 54, *option++ = 4, memcpy(option, &offer->server, 4), option += 4;
    }
    *option++ = 55, *option++ = 2, *option++ = 1, *option++ = 3;
    *option = 255;
    packet.udp.source = htons(68);
    packet.udp.dest = htons(67);
    packet.udp.len = htons(sizeof packet.udp + sizeof packet.dhcp);
    packet.ip.version = 4;
    packet.ip.ihl = 5;
    packet.ip.ttl = 64;
    packet.ip.protocol = IPPROTO_UDP;
    packet.ip.tot_len = htons(sizeof packet);
    packet.ip.daddr = INADDR_BROADCAST;
    packet.ip.check = checksum(&packet.ip, sizeof packet.ip);
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_IP),
                             .sll_ifindex = interface,
                             .sll_halen = 6,
                             .sll_addr = {255, 255, 255, 255, 255, 255}};
    sendto(channel, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to);
}

static int dhcp_parse(const uint8_t *data, size_t length, const uint8_t *mac, struct lease *lease)
{
    const struct iphdr *ip = (const void *)data;
    if (length < sizeof *ip || ip->protocol != IPPROTO_UDP)
        return 0;
    size_t offset = ip->ihl * 4 + sizeof(struct udphdr);
    const struct udphdr *udp = (const void *)(data + ip->ihl * 4);
    const struct dhcp *message = (const void *)(data + offset);
    if (length < offset + offsetof(struct dhcp, options) || ntohs(udp->dest) != 68)
        return 0;
    if (message->op != 2 || memcmp(message->chaddr, mac, 6))
        return 0;
    memset(lease, 0, sizeof *lease);
    lease->address = message->yiaddr;
    const uint8_t *end = data + length;
    for (const uint8_t *option = message->options; option + 1 < end && *option != 255;) {
        if (*option == 0) {
            option++;
            continue;
        }
        const uint8_t *value = option + 2;
        if (value + option[1] > end)
            break;
        if (*option == 53)
            lease->type = *value;
        else if (*option == 1)
            memcpy(&lease->mask, value, 4);
        else if (*option == 3)
            memcpy(&lease->router, value, 4);
        else if (*option == 54)
            memcpy(&lease->server, value, 4);
        option = value + option[1];
    }
    return lease->type;
}

static int dhcp_ask(int channel, int interface, const uint8_t *mac, int type,
                    const struct lease *offer, int wanted, struct lease *lease)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        dhcp_send(channel, interface, mac, type, offer);
        for (int waited_ms = 0; waited_ms < 2000; waited_ms += 100) {
            struct pollfd ready = {.fd = channel, .events = POLLIN};
            if (poll(&ready, 1, 100) <= 0)
                continue;
            uint8_t data[2048];
            ssize_t length = recv(channel, data, sizeof data, MSG_DONTWAIT);
            if (length > 0 && dhcp_parse(data, length, mac, lease) == wanted)
                return 1;
        }
    }
    return 0;
}

static void set_address(struct ifreq *request, unsigned long what, uint32_t address, int channel)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&request->ifr_addr;
    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = address;
    if (ioctl(channel, what, request))
        say("net address: %s", strerror(errno));
}

static const char *dotted(uint32_t address)
{
    static char text[4][INET_ADDRSTRLEN];
    static int next;
    next = (next + 1) % 4;
    return inet_ntop(AF_INET, &address, text[next], INET_ADDRSTRLEN);
}

void network(const char *wanted)
{
    struct ifreq request = {0};
    DIR *folder = opendir("/sys/class/net");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lo") &&
            (!*wanted || !strcmp(entry->d_name, wanted)))
            snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", entry->d_name);
    if (folder)
        closedir(folder);
    if (!request.ifr_name[0]) {
        say("net no interface");
        return;
    }
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ioctl(control, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    ioctl(control, SIOCSIFFLAGS, &request);
    uint8_t mac[6];
    ioctl(control, SIOCGIFHWADDR, &request);
    memcpy(mac, request.ifr_hwaddr.sa_data, 6);
    int channel = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    int interface = if_nametoindex(request.ifr_name);
    struct sockaddr_ll here = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = interface};
    bind(channel, (struct sockaddr *)&here, sizeof here);
    struct lease offer, lease;
    int leased = dhcp_ask(channel, interface, mac, 1, NULL, 2, &offer) &&
                 dhcp_ask(channel, interface, mac, 3, &offer, 5, &lease);
    close(channel);
    if (!leased) {
        say("net %s no answer from DHCP", request.ifr_name);
        close(control);
        return;
    }
    set_address(&request, SIOCSIFADDR, lease.address, control);
    set_address(&request, SIOCSIFNETMASK, lease.mask, control);
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in any = {.sin_family = AF_INET};
    struct sockaddr_in router = {.sin_family = AF_INET, .sin_addr.s_addr = lease.router};
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &router, sizeof router);
    if (lease.router && ioctl(control, SIOCADDRT, &route))
        say("net route: %s", strerror(errno));
    close(control);
    say("net %s address %s router %s server %s", request.ifr_name, dotted(lease.address),
        dotted(lease.router), dotted(lease.server));
}

/* --- frames as they are ------------------------------------------------------------------ */

static int heard_by = -1;

static int packet_socket(const char *interface, int type)
{
    int channel = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(type));
    struct sockaddr_ll here = {.sll_family = AF_PACKET,
                               .sll_protocol = htons(type),
                               .sll_ifindex = if_nametoindex(interface)};
    if (channel >= 0 && !bind(channel, (struct sockaddr *)&here, sizeof here))
        return channel;
    say("%s: %s", interface, strerror(errno));
    close(channel);
    return -1;
}

static size_t from_hex(const char *text, uint8_t *into, size_t size)
{
    size_t length = 0;
    unsigned octet;
    while (length < size && sscanf(text + 2 * length, "%2x", &octet) == 1)
        into[length++] = octet;
    return length;
}

void send_frame(const char *interface, const char *hex)
{
    uint8_t frame[1514];
    size_t length = from_hex(hex, frame, sizeof frame);
    int channel = packet_socket(interface, 0);
    if (channel < 0)
        return;
    ssize_t count = send(channel, frame, length, 0);
    if (count < 0)
        say("frame %s", strerror(errno));
    else
        say("frame %zd sent", count);
    close(channel);
}

void listen_for_frames(const char *interface)
{
    int size = 1 << 20;
    if (heard_by >= 0)
        close(heard_by);
    heard_by = packet_socket(interface, ETH_P_ALL);
    if (heard_by < 0)
        return;
    setsockopt(heard_by, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    say("listen %s", interface);
}

void tell_heard(const char *hex)
{
    uint8_t wanted[64], frame[2048];
    size_t length = from_hex(hex, wanted, sizeof wanted);
    struct sockaddr_ll from;
    int found = 0, all = 0;
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t count =
            recvfrom(heard_by, frame, sizeof frame, 0, (struct sockaddr *)&from, &size);
        if (count < 0)
            break;
        if (from.sll_pkttype == PACKET_OUTGOING)
            continue;
        all++;
        found += length && memmem(frame, count, wanted, length) != NULL;
    }
    say("heard %d of %d", found, all);
}

static int connect_to(const char *what, const char *address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval limit = {.tv_sec = 20};
    int channel = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(channel, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        say("%s bad address", what);
    else if (connect(channel, (struct sockaddr *)&to, sizeof to))
        say("%s failed: %s", what, strerror(errno));
    else
        return channel;
    close(channel);
    return -1;
}

void fetch(const char *address, int port)
{
    char line[200];
    size_t filled = 0;
    ssize_t count = 1;
    int channel = connect_to("fetch", address, port);
    if (channel < 0)
        return;
    while (filled < sizeof line - 1 && count > 0 && !memchr(line, '\n', filled)) {
        count = recv(channel, line + filled, sizeof line - 1 - filled, 0);
        filled += count > 0 ? count : 0;
    }
    line[filled] = 0;
    line[strcspn(line, "\r\n")] = 0;
    say("fetch %s", line);
    close(channel);
}

void drain(const char *address, int port)
{
    static char data[1 << 16];
    unsigned long long total = 0;
    ssize_t count;
    int channel = connect_to("drain", address, port);
    if (channel < 0)
        return;
    while ((count = recv(channel, data, sizeof data, 0)) > 0)
        total += count;
    say("drain %llu%s%s", total, count ? ": " : "", count ? strerror(errno) : "");
    close(channel);
}
