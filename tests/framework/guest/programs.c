/* What the guest does for a real program in it: QEMU's guest agent.
 *
 * The agent runs `shutdown` and `hwclock`; both are this program under another name. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define AGENT_PORT "org.qemu.guest_agent.0"
#define LOG "/mnt/log"

static int shut_down(void)
{
    dup2(open("/dev/console", O_WRONLY), 1); /* the agent gives its programs no output */
    say("shutdown: asked by a program");
    sync();
    tcdrain(1);
    reboot(RB_POWER_OFF);
    return 1;
}

static int set_hardware_clock(void)
{
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    struct rtc_time wanted = {.tm_sec = parts.tm_sec, .tm_min = parts.tm_min,
                              .tm_hour = parts.tm_hour, .tm_mday = parts.tm_mday,
                              .tm_mon = parts.tm_mon, .tm_year = parts.tm_year};
    int device = open("/dev/rtc0", O_WRONLY | O_CLOEXEC);
    return device < 0 || ioctl(device, RTC_SET_TIME, &wanted) ? 1 : 0;
}

int other_program(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!strcmp(name, "shutdown"))
        return shut_down();
    if (!strcmp(name, "hwclock"))
        return set_hardware_clock();
    return -1;
}

/* The device of the port with the agent's name; 0 where there is none. */
static int find_port(char *into, size_t size)
{
    int found = 0;
    DIR *folder = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        char path[300], name[64];
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        read_text(path, name, sizeof name);
        name[strcspn(name, "\n")] = 0;
        if (!strcmp(name, AGENT_PORT)) {
            snprintf(into, size, "/dev/%s", entry->d_name);
            found = 1;
        }
    }
    if (folder)
        closedir(folder);
    return found;
}

void start_agent(void)
{
    char port[300];
    if (!find_port(port, sizeof port)) {
        say("agent: there is no port for it");
        return;
    }
    mkdir("/run", 0755);
    char *argv[] = {"/usr/sbin/qemu-ga", "-m", "virtio-serial", "-p", port, "-t", "/run", NULL};
    char *environment[] = {"PATH=/usr/sbin:/sbin", NULL};
    pid_t child = fork();
    if (!child) {
        execve(argv[0], argv, environment);
        say("agent: %s", strerror(errno));
        _exit(1);
    }
    say("agent %d", (int)child);
}

void send_signal(int process, int number)
{
    int failure = kill(process, number) ? errno : 0;
    say("signal %d: %s", number, failure ? strerror(failure) : "done");
}

void mount_disk(const char *disk, const char *kind)
{
    char path[80];
    snprintf(path, sizeof path, "/dev/%s", disk);
    mkdir("/mnt", 0755);
    int failure = mount(path, "/mnt", kind, 0, NULL) ? errno : 0;
    say("mount %s: %s", disk, failure ? strerror(failure) : "done");
}

void append(const char *text)
{
    int file = open(LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int failure = file < 0 || dprintf(file, "%s\n", text) < 0 || fsync(file) ? errno : 0;
    if (file >= 0)
        close(file);
    say("append: %s", failure ? strerror(failure) : "done");
}

void tell_time(long long seconds)
{
    struct timespec wanted = {.tv_sec = seconds};
    if (seconds && clock_settime(CLOCK_REALTIME, &wanted))
        say("time: %s", strerror(errno));
    say("time %lld", (long long)time(NULL));
}

void bury(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}
