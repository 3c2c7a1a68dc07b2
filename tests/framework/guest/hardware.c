/* What the guest sees of its hardware, and its watchdog. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/watchdog.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void say_file(const char *what, const char *name, const char *format, const char *of)
{
    char path[300], text[200];
    snprintf(path, sizeof path, format, of);
    if (!read_text(path, text, sizeof text))
        return;
    text[strcspn(text, "\n")] = 0;
    say("guest %s %s%s%s", what, name, *name ? " " : "", text);
}

static void each_in(const char *folder_path, const char *start, void (*action)(const char *))
{
    DIR *folder = opendir(folder_path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (!strncmp(entry->d_name, start, strlen(start)) && entry->d_name[0] != '.')
            action(entry->d_name);
    if (folder)
        closedir(folder);
}

static void say_pci(const char *name)
{
    char path[300], vendor[16], device[16];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vendor", name);
    read_text(path, vendor, sizeof vendor);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/device", name);
    read_text(path, device, sizeof device);
    say("guest pci %s %.4s:%.4s", name, vendor + 2, device + 2);
}

/* The driver of the PCI device that a disk or card hangs on: the last one on its path. */
static void say_driver(const char *class_path, const char *name)
{
    char path[300], real[PATH_MAX], driver[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", class_path, name);
    if (!realpath(path, real))
        return;
    for (char *end = real + strlen(real); end > real; *end = 0) {
        unsigned int part;
        char *last = end;
        while (*--last != '/')
            ;
        end = last;
        if (sscanf(last, "/%4x:%2x:%2x.%1x", &part, &part, &part, &part) != 4)
            continue;
        strcat(real, "/driver");
        if (realpath(real, driver))
            say("guest driver %s %s", name, strrchr(driver, '/') + 1);
        return;
    }
}

static void say_input(const char *name)
{
    say_file("input", "", "/sys/class/input/%s/name", name);
}

static void say_serial(const char *name)
{
    char path[300], text[16];
    snprintf(path, sizeof path, "/sys/class/tty/%s/type", name);
    if (read_text(path, text, sizeof text) && text[0] != '0')
        say("guest serial %s", name);
}

static void say_carrier(const char *name)
{
    struct ifreq request = {0};
    int channel = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (!strcmp(name, "lo"))
        return;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", name);
    if (!ioctl(channel, SIOCGIFFLAGS, &request)) {
        request.ifr_flags |= IFF_UP;
        ioctl(channel, SIOCSIFFLAGS, &request);
    }
    close(channel);
    usleep(300000);
    say_file("carrier", name, "/sys/class/net/%s/carrier", name);
    say_driver("/sys/class/net", name);
}

static void say_disk(const char *name)
{
    if (!strncmp(name, "loop", 4) || !strncmp(name, "ram", 3))
        return;
    say_file("read-only", name, "/sys/block/%s/ro", name);
    say_driver("/sys/block", name);
}

/* The certificates that the firmware trusts, as the kernel says while it starts. */
static void say_certificates(void)
{
    char record[8192];
    int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t count;
    while (log >= 0 && (count = read(log, record, sizeof record - 1)) > 0) {
        record[count] = 0;
        char *found = strstr(record, "Loaded X.509 cert '");
        if (!found)
            continue;
        found[strcspn(found, "\n")] = 0;
        say("guest certificate %s", found + strlen("Loaded X.509 cert "));
    }
    if (log >= 0)
        close(log);
}

void hardware(void)
{
    each_in("/sys/bus/pci/devices", "", say_pci);
    each_in("/sys/class/input", "input", say_input);
    each_in("/sys/class/tty", "ttyS", say_serial);
    each_in("/sys/class/net", "", say_carrier);
    each_in("/sys/block", "", say_disk);
    say_file("tpm", "", "/sys/class/tpm/%s/tpm_version_major", "tpm0");
    say_file("pcr7", "", "/sys/class/tpm/%s/pcr-sha256/7", "tpm0");
    say_file("watchdog", "", "/sys/class/watchdog/%s/identity", "watchdog0");
    say_file("rng", "", "/sys/class/misc/%s/rng_available", "hw_random");
    say_file("clock", "", "/sys/class/rtc/%s/since_epoch", "rtc0");
    say_file("cpus", "possible", "/sys/devices/system/cpu/%s", "possible");
    say_certificates();
    say("hardware done");
}

/* Start the watchdog and never feed it. */
void watchdog(int seconds)
{
    int device = open("/dev/watchdog0", O_WRONLY | O_CLOEXEC);
    if (device < 0 || ioctl(device, WDIOC_SETTIMEOUT, &seconds)) {
        say("watchdog: %s", strerror(errno));
        return;
    }
    say("watchdog: %d seconds", seconds);
}
