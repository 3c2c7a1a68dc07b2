/* The tiny guest's whole user space: PID 1 of a Linux that the tests boot.
 *
 * It says that it is there, loads the drivers that its machine needs, says what it sees, counts
 * once a second, and does what the serial line tells it. One static program (with hardware.c,
 * network.c, speed.c and vsock.c), no other file except kernel modules.
 *
 *   MICA GUEST READY <tag>      the first line; the tag is mica.tag= of the command line
 *   guest cpus 2 memory_kib 250000 firmware uefi
 *   guest disk vda 67108864
 *   guest nic eth0 52:54:00:12:34:56
 *   MICA GUEST UP
 *   tick 1 …                    every second
 *
 * Commands, one a line; each is answered by one line that starts with its name:
 *
 *   report                      repeats what it sees
 *   hardware                    PCI devices, inputs, serial lines, TPM, watchdog, clock…
 *   watchdog SECONDS            starts the watchdog and never feeds it
 *   load NAME                   loads a module of the initrd with its dependencies
 *   boot                        the random number that this start of the kernel has
 *   net [INTERFACE]             asks DHCP for an address and sets it
 *   frame INTERFACE HEX         sends a frame as it is
 *   listen INTERFACE            keeps the frames that come in from now on
 *   heard HEX                   how many of them hold these octets, and of how many; forgets them
 *   fetch ADDRESS PORT          connects by TCP and prints the first line that comes
 *   drain ADDRESS PORT          connects by TCP and counts the octets that come until the end
 *   vsock PORT                  tells its CID, waits for one line from the host, and answers it
 *   write DISK OFFSET LENGTH SEED   writes a known pattern, and flushes
 *   sum DISK OFFSET LENGTH      the CRC-32 of what the disk holds
 *   churn DISK LENGTH ROUNDS    writes the pattern of seeds 1 to ROUNDS, one after the other, while
 *                               it goes on doing what it is told
 *   speed DISK read|write sequential|random BLOCK LENGTH REQUESTS
 *                               times requests, one after the other, in the first LENGTH octets
 *   discard DISK OFFSET LENGTH  tells the disk that these blocks are free
 *   online                      takes processors and memory that were added into use
 *   agent                       starts QEMU's guest agent, where the initrd has it (agent.py)
 *   signal PROCESS NUMBER
 *   mount DISK TYPE             on /mnt
 *   append TEXT                 a line to a file there, flushed
 *   time SECONDS                sets the clock, unless it is 0, and tells what it shows
 *   echo TEXT
 *   off | reboot | crash
 *
 * The ACPI power button powers off. Another key that is pressed is told as `key CODE`.
 *
 * Started by hand on another Linux, with the words of `speed` as arguments, it does that alone.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_INPUTS 8
#define SECTOR 512
#define MODULE_COMPRESSED 4 /* MODULE_INIT_COMPRESSED_FILE */

static int inputs[MAX_INPUTS];
static int input_count;

void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    for (int done = 0; done < length;) {
        ssize_t count = write(1, line + done, length - done);
        if (count <= 0 && errno != EINTR)
            return;
        if (count > 0)
            done += count;
    }
}

size_t read_text(const char *path, char *into, size_t size)
{
    into[0] = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    size_t filled = 0;
    while (filled < size - 1) {
        ssize_t count = read(file, into + filled, size - 1 - filled);
        if (count <= 0)
            break;
        filled += count;
    }
    close(file);
    into[filled] = 0;
    return filled;
}

static void option(const char *name, char *into, size_t size, const char *otherwise)
{
    static char cmdline[4096];
    if (!cmdline[0])
        read_text("/proc/cmdline", cmdline, sizeof cmdline);
    snprintf(into, size, "%s", otherwise);
    char words[4096];
    strcpy(words, cmdline);
    char *rest;
    for (char *word = strtok_r(words, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        if (!strncmp(word, name, strlen(name)) && word[strlen(name)] == '=')
            snprintf(into, size, "%s", word + strlen(name) + 1);
}

static int insert(const char *file)
{
    char path[160];
    snprintf(path, sizeof path, "/modules/%s", file);
    int module = open(path, O_RDONLY | O_CLOEXEC);
    if (module < 0)
        return -errno;
    int flags = strstr(file, ".ko.") ? MODULE_COMPRESSED : 0;
    int failure = syscall(SYS_finit_module, module, "", flags) ? errno : 0;
    close(module);
    return failure == EEXIST ? 0 : -failure;
}

/* Lines of /modules/index: NAME FILE…, the files in the order in which they must be loaded. */
static int load(const char *name)
{
    static char index[1 << 15];
    if (!index[0])
        read_text("/modules/index", index, sizeof index);
    char copy[sizeof index];
    strcpy(copy, index);
    char *lines;
    for (char *line = strtok_r(copy, "\n", &lines); line; line = strtok_r(NULL, "\n", &lines)) {
        char *words;
        char *word = strtok_r(line, " ", &words);
        if (!word || strcmp(word, name))
            continue;
        while ((word = strtok_r(NULL, " ", &words))) {
            int failure = insert(word);
            if (failure) {
                say("load %s: %s: %s", name, word, strerror(-failure));
                return failure;
            }
        }
        return 0;
    }
    return -ENOENT;
}

static const struct {
    uint32_t vendor, device;
    const char *modules;
} DRIVERS[] = {
    {0x1af4, 0x1000, "virtio_net"},        {0x1af4, 0x1041, "virtio_net"},
    {0x1af4, 0x1001, "virtio_blk"},        {0x1af4, 0x1042, "virtio_blk"},
    {0x1af4, 0x1002, "virtio_balloon"},    {0x1af4, 0x1045, "virtio_balloon"},
    {0x1af4, 0x1004, "virtio_scsi sd_mod"}, {0x1af4, 0x1048, "virtio_scsi sd_mod"},
    {0x8086, 0x100e, "e1000"},             {0x8086, 0x10d3, "e1000e"},
    {0x15ad, 0x07b0, "vmxnet3"},           {0x10ec, 0x8139, "8139cp"},
    {0x1b36, 0x0010, "nvme"},              {0x8086, 0x25ab, "i6300esb"},
    {0x1af4, 0x1002, "virtio_balloon"},    {0x1af4, 0x1045, "virtio_balloon"},
    {0x1af4, 0x1005, "virtio-rng"},        {0x1af4, 0x1044, "virtio-rng"},
    {0x1af4, 0x1012, "vmw_vsock_virtio_transport"},
    {0x1af4, 0x1053, "vmw_vsock_virtio_transport"},
};

static void load_for(const char *device)
{
    char path[300], text[32], modules[64];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vendor", device);
    read_text(path, text, sizeof text);
    uint32_t vendor = strtoul(text, NULL, 16);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/device", device);
    read_text(path, text, sizeof text);
    uint32_t id = strtoul(text, NULL, 16);
    for (size_t i = 0; i < sizeof DRIVERS / sizeof *DRIVERS; i++) {
        if (DRIVERS[i].vendor != vendor || DRIVERS[i].device != id)
            continue;
        strcpy(modules, DRIVERS[i].modules);
        char *rest;
        for (char *name = strtok_r(modules, " ", &rest); name; name = strtok_r(NULL, " ", &rest))
            load(name);
    }
}

static void load_drivers(void)
{
    char extra[256], *rest;
    DIR *folder = opendir("/sys/bus/pci/devices");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            load_for(entry->d_name);
    if (folder)
        closedir(folder);
    load("button");
    load("evdev");
    option("mica.load", extra, sizeof extra, "");
    for (char *name = strtok_r(extra, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        load(name);
}

static void open_inputs(void)
{
    for (int i = 0; i < input_count; i++)
        close(inputs[i]);
    input_count = 0;
    for (int i = 0; i < 16 && input_count < MAX_INPUTS; i++) {
        char path[40];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int device = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (device >= 0)
            inputs[input_count++] = device;
    }
}

static void report_disk(const char *name)
{
    char path[300], text[32];
    if (!strncmp(name, "loop", 4) || !strncmp(name, "ram", 3))
        return;
    snprintf(path, sizeof path, "/sys/block/%s/size", name);
    read_text(path, text, sizeof text);
    say("guest disk %s %llu", name, strtoull(text, NULL, 10) * SECTOR);
}

static void report_nic(const char *name)
{
    char path[300], text[32];
    if (!strcmp(name, "lo"))
        return;
    snprintf(path, sizeof path, "/sys/class/net/%s/address", name);
    read_text(path, text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    say("guest nic %s %s", name, text);
}

static void each(const char *folder_path, void (*action)(const char *))
{
    DIR *folder = opendir(folder_path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            action(entry->d_name);
    if (folder)
        closedir(folder);
}

static void report(void)
{
    struct sysinfo memory;
    sysinfo(&memory);
    say("guest cpus %d memory_kib %lu firmware %s", get_nprocs(),
        (unsigned long)(memory.totalram * memory.mem_unit >> 10),
        access("/sys/firmware/efi", F_OK) ? "bios" : "uefi");
    each("/sys/block", report_disk);
    each("/sys/class/net", report_nic);
    say("MICA GUEST UP");
}

/* --- disks ------------------------------------------------------------------------------- */

static uint32_t crc32(uint32_t crc, const uint8_t *data, size_t length)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
            table[i] = value;
        }
    crc = ~crc;
    while (length--)
        crc = table[(crc ^ *data++) & 255] ^ crc >> 8;
    return ~crc;
}

static int open_disk(const char *command, const char *name, int flags)
{
    char path[80];
    snprintf(path, sizeof path, "/dev/%s", name);
    int disk = open(path, flags | O_CLOEXEC);
    if (disk < 0)
        say("%s %s: %s", command, name, strerror(errno));
    return disk;
}

static void write_pattern(const char *name, uint64_t offset, uint64_t length, uint64_t seed)
{
    uint64_t sector[SECTOR / 8];
    int disk = open_disk("write", name, O_RDWR);
    if (disk < 0)
        return;
    for (uint64_t done = 0; done < length; done += SECTOR) {
        for (size_t i = 0; i < SECTOR / 8; i++)
            sector[i] = seed + (offset + done) / SECTOR;
        if (pwrite(disk, sector, SECTOR, offset + done) != SECTOR) {
            say("write %s: %s", name, strerror(errno));
            close(disk);
            return;
        }
    }
    int failure = fsync(disk) ? errno : 0;
    close(disk);
    say("write %s %llu %llu: %s", name, (unsigned long long)offset, (unsigned long long)length,
        failure ? strerror(failure) : "done");
}

static void sum(const char *name, uint64_t offset, uint64_t length)
{
    uint8_t data[1 << 16];
    uint32_t crc = 0;
    int disk = open_disk("sum", name, O_RDONLY);
    if (disk < 0)
        return;
    for (uint64_t done = 0; done < length;) {
        size_t wanted = length - done < sizeof data ? length - done : sizeof data;
        ssize_t count = pread(disk, data, wanted, offset + done);
        if (count <= 0) {
            say("sum %s: %s", name, count ? strerror(errno) : "end of the disk");
            close(disk);
            return;
        }
        crc = crc32(crc, data, count);
        done += count;
    }
    close(disk);
    say("sum %s %llu %llu: %08x", name, (unsigned long long)offset, (unsigned long long)length,
        crc);
}

static void churn(const char *name, uint64_t length, uint64_t rounds)
{
    if (fork())
        return;
    uint8_t *data = malloc(1 << 16);
    int disk = open_disk("churn", name, O_RDWR);
    for (uint64_t seed = 1; disk >= 0 && seed <= rounds; seed++) {
        for (uint64_t done = 0; done < length; done += 1 << 16) {
            uint64_t *word = (uint64_t *)data;
            for (size_t i = 0; i < (1 << 16) / 8; i++)
                word[i] = seed + (done + i * 8) / SECTOR;
            if (pwrite(disk, data, 1 << 16, done) != 1 << 16) {
                say("churn %s: %s", name, strerror(errno));
                _exit(1);
            }
        }
        if (fsync(disk)) {
            say("churn %s: %s", name, strerror(errno));
            _exit(1);
        }
    }
    say("churn %s %llu: done", name, (unsigned long long)length);
    _exit(0);
}

static void discard(const char *name, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    int disk = open_disk("discard", name, O_RDWR);
    if (disk < 0)
        return;
    int failure = ioctl(disk, BLKDISCARD, range) || fsync(disk) ? errno : 0;
    close(disk);
    say("discard %s: %s", name, failure ? strerror(failure) : "done");
}

static void set_online(const char *folder, const char *prefix)
{
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char path[400], text[8];
        if (strncmp(entry->d_name, prefix, strlen(prefix)))
            continue;
        snprintf(path, sizeof path, "%s/%s/online", folder, entry->d_name);
        if (!read_text(path, text, sizeof text) || text[0] != '0')
            continue;
        int file = open(path, O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, "1", 1) != 1)
            say("online %s: %s", entry->d_name, strerror(errno));
        if (file >= 0)
            close(file);
    }
    if (entries)
        closedir(entries);
}

/* --- the serial line --------------------------------------------------------------------- */

static void finish(int how)
{
    sync();
    tcdrain(1);
    reboot(how);
}

static void crash(void)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (trigger < 0 || write(trigger, "c", 1) != 1)
        say("crash: %s", strerror(errno));
}

static void say_boot(void)
{
    char text[64];
    read_text("/proc/sys/kernel/random/boot_id", text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    say("boot %s", text);
}

static void obey(char *line)
{
    char name[64] = "", text[64] = "", order[16] = "";
    unsigned long long offset, length, seed;
    int port;
    line[strcspn(line, "\r\n")] = 0;
    if (!line[0])
        return;
    if (!strcmp(line, "report"))
        report();
    else if (!strcmp(line, "hardware"))
        hardware();
    else if (!strcmp(line, "boot"))
        say_boot();
    else if (!strcmp(line, "net") || sscanf(line, "net %63s", text) == 1)
        network(text);
    else if (!strcmp(line, "off")) {
        say("off");
        finish(RB_POWER_OFF);
    } else if (!strcmp(line, "reboot"))
        finish(RB_AUTOBOOT);
    else if (!strcmp(line, "crash"))
        crash();
    else if (!strcmp(line, "agent"))
        start_agent();
    else if (sscanf(line, "signal %d %llu", &port, &length) == 2)
        send_signal(port, (int)length);
    else if (sscanf(line, "mount %63s %63s", name, text) == 2)
        mount_disk(name, text);
    else if (!strncmp(line, "append ", 7))
        append(line + 7);
    else if (sscanf(line, "frame %63s %n", name, &port) == 1)
        send_frame(name, line + port);
    else if (sscanf(line, "listen %63s", name) == 1)
        listen_for_frames(name);
    else if (!strncmp(line, "heard ", 6))
        tell_heard(line + 6);
    else if (sscanf(line, "time %llu", &length) == 1)
        tell_time((long long)length);
    else if (!strncmp(line, "echo ", 5))
        say("%s", line);
    else if (sscanf(line, "load %63s", name) == 1) {
        int failure = load(name);
        usleep(500000);
        open_inputs();
        say("load %s: %s", name, failure ? strerror(-failure) : "done");
    } else if (sscanf(line, "fetch %63s %d", text, &port) == 2)
        fetch(text, port);
    else if (sscanf(line, "drain %63s %d", text, &port) == 2)
        drain(text, port);
    else if (sscanf(line, "vsock %d", &port) == 1)
        listen_to_host(port);
    else if (sscanf(line, "watchdog %d", &port) == 1)
        watchdog(port);
    else if (sscanf(line, "write %63s %llu %llu %llu", name, &offset, &length, &seed) == 4)
        write_pattern(name, offset, length, seed);
    else if (!strcmp(line, "online")) {
        set_online("/sys/devices/system/cpu", "cpu");
        set_online("/sys/devices/system/memory", "memory");
        say("online: done");
    } else if (sscanf(line, "churn %63s %llu %llu", name, &length, &seed) == 3)
        churn(name, length, seed);
    else if (sscanf(line, "speed %63s %63s %15s %llu %llu %llu", name, text, order, &offset, &length,
                    &seed) == 6)
        speed(name, text, order, offset, length, seed);
    else if (sscanf(line, "discard %63s %llu %llu", name, &offset, &length) == 3)
        discard(name, offset, length);
    else if (sscanf(line, "sum %63s %llu %llu", name, &offset, &length) == 3)
        sum(name, offset, length);
    else
        say("unknown command: %s", line);
}

static void listen_to_serial(void)
{
    static char line[1024];
    static size_t filled;
    char data[128];
    ssize_t count = read(0, data, sizeof data);
    for (ssize_t i = 0; i < count; i++) {
        if (data[i] == '\n' || data[i] == '\r') {
            line[filled] = 0;
            filled = 0;
            obey(line);
        } else if (filled < sizeof line - 1)
            line[filled++] = data[i];
    }
}

static void listen_to_buttons(int device)
{
    struct input_event event;
    while (read(device, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
            say("power button");
            finish(RB_POWER_OFF);
        } else if (event.type == EV_KEY && event.code < BTN_MISC && event.value == 1)
            say("key %d", event.code);
}

static void set_up(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    if (console < 0)
        return;
    dup2(console, 0);
    dup2(console, 1);
    dup2(console, 2);
    struct termios terminal;
    if (!tcgetattr(0, &terminal)) {
        terminal.c_lflag &= ~(ICANON | ECHO | ISIG);
        terminal.c_iflag &= ~(ICRNL | IXON);
        tcsetattr(0, TCSANOW, &terminal);
    }
}

int main(int count, char **words)
{
    char tag[64];
    if (getpid() != 1) {
        int ended = other_program(words[0]);
        if (ended >= 0)
            return ended;
        if (count == 7)
            speed(words[1], words[2], words[3], strtoull(words[4], NULL, 10),
                  strtoull(words[5], NULL, 10), strtoull(words[6], NULL, 10));
        return count != 7;
    }
    set_up();
    option("mica.tag", tag, sizeof tag, "-");
    sethostname(tag, strlen(tag));
    say("MICA GUEST READY %s", tag);
    load_drivers();
    open_inputs();
    report();
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec every = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
    timerfd_settime(timer, 0, &every, NULL);
    for (uint64_t ticks = 0;;) {
        struct pollfd ready[MAX_INPUTS + 2] = {{.fd = timer, .events = POLLIN},
                                               {.fd = 0, .events = POLLIN}};
        for (int i = 0; i < input_count; i++)
            ready[i + 2] = (struct pollfd){.fd = inputs[i], .events = POLLIN};
        if (poll(ready, input_count + 2, -1) < 0)
            continue;
        uint64_t expired;
        if (ready[0].revents & POLLIN && read(timer, &expired, 8) == 8)
            while (expired--) {
                say("tick %llu", (unsigned long long)++ticks);
                bury();
            }
        if (ready[1].revents & POLLIN)
            listen_to_serial();
        for (int i = 0; i < input_count; i++)
            if (ready[i + 2].revents & POLLIN)
                listen_to_buttons(inputs[i]);
    }
}
