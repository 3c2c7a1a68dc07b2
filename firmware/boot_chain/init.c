/* SPDX-License-Identifier: Apache-2.0
 *
 * /init of Mica's initrd: mounts the root image that the initrd contains and starts systemd.
 *
 *   /init  /root.erofs  /modules/<NN>-<name>.ko          (what the initrd holds)
 *
 *   kernel -> basics -> modules -> root image -> write layer -> switch -> systemd
 *
 * The root is the image itself, read-only. Only /etc and /var can be written: each is an
 * overlay of the image's folder and one tmpfs. So no program and no unit file can be
 * changed in a running system, and all changes are lost when the power is cut. Programs
 * can't be run from any place that can be written: only those of the image run.
 *
 * Every stage sets its name before it starts. If a stage fails, every console shows what
 * failed and why; the machine restarts after RESTART_AFTER_S and tries the same image
 * again. No stage waits for hardware.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROOT_IMAGE "/root.erofs"
/* Long enough to read or photograph the screen. */
#define RESTART_AFTER_S 60
#define WRITE_LAYER_OPTIONS "mode=0755,size=25%"
/* As systemd mounts it (mount-setup.c). */
#define RUN_OPTIONS "mode=0755,size=20%,nr_inodes=800k"

static const char *stage = "basics";

/* Write a line to every console, and to the kernel's log, from which the journal takes it. */
static void say(const char *format, ...)
{
	char line[400], names[200], record[440];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);

	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		int length = snprintf(record, sizeof record, "<6>mica: %s\n", line);
		if (write(fd, record, length) < 0) { /* the consoles below still get it */ }
		close(fd);
	}
	fd = open("/sys/class/tty/console/active", O_RDONLY | O_CLOEXEC);
	ssize_t count = fd >= 0 ? read(fd, names, sizeof names - 1) : 0;
	if (fd >= 0)
		close(fd);
	names[count > 0 ? count : 0] = 0;
	int shown = 0;
	for (char *name = strtok(names, " \n"); name; name = strtok(NULL, " \n")) {
		char path[64];
		snprintf(path, sizeof path, "/dev/%s", name);
		fd = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0) {
			dprintf(fd, "mica: %s\r\n", line);
			close(fd);
			shown++;
		}
	}
	if (!shown)
		dprintf(STDOUT_FILENO, "mica: %s\r\n", line);
}

static double uptime(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* Show which stage failed and why, wait RESTART_AFTER_S, and restart the machine. */
static _Noreturn void fail(const char *what, const char *object)
{
	int why = errno;
	say("START FAILED in stage '%s': %s %s: %s", stage, what, object, strerror(why));
	say("The machine restarts in %d s and tries again.", RESTART_AFTER_S);
	sleep(RESTART_AFTER_S);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void need(int result, const char *what, const char *object)
{
	if (result < 0)
		fail(what, object);
}

static void mount_at(const char *source, const char *target, const char *type,
		     unsigned long flags, const char *options)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST && errno != EROFS)
		fail("make folder", target);
	need(mount(source, target, type, flags, options), "mount", target);
}

static void basics(void)
{
	stage = "basics";
	umask(022);
	mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
	/* PID 1 would mount these two itself, but without noexec. */
	mount_at("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=50%");
	mount_at("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, RUN_OPTIONS);
	say("kernel up after %.1f s, starting", uptime());
}

/* Load the modules in the order of their names, then free the memory they took as files.
 * ENODEV: the module is for a CPU feature that this CPU lacks; a generic one is loaded too. */
static void modules(void)
{
	struct dirent **entries;
	stage = "modules";
	int count = scandir("/modules", &entries, NULL, alphasort);
	need(count, "read", "/modules");
	for (int i = 0; i < count; i++) {
		char path[300];
		if (entries[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/modules/%s", entries[i]->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		need(fd, "open", path);
		if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV)
			fail("load module", path);
		close(fd);
		unlink(path);
	}
	rmdir("/modules");
}

/* The kernel reads the image as the file that it is (EROFS_FS_BACKED_BY_FILE, which the build
 * asserts), so that there is no loop device and no second copy in the page cache. */
static void root_image(void)
{
	stage = "root image";
	need(mkdir("/system", 0755), "make folder", "/system");
	need(mount(ROOT_IMAGE, "/system", "erofs", MS_RDONLY | MS_NODEV, NULL), "mount", ROOT_IMAGE);
}

static void overlay(const char *name)
{
	char upper[64], work[64], target[64], options[300];
	snprintf(upper, sizeof upper, "/layer/%s", name);
	snprintf(work, sizeof work, "/layer/.%s", name);
	snprintf(target, sizeof target, "/system/%s", name);
	need(mkdir(upper, 0755), "make folder", upper);
	need(mkdir(work, 0700), "make folder", work);
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,volatile", target,
		 upper, work);
	need(mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV | MS_NOEXEC, options), "mount",
	     target);
}

static void write_layer(void)
{
	stage = "write layer";
	mount_at("tmpfs", "/layer", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, WRITE_LAYER_OPTIONS);
	overlay("etc");
	overlay("var");
}

/* The kernel took the microcode from the initrd before it unpacked it; the files, which it then
 * unpacked as well, would hold 15 MB for ever. */
static void microcode(void)
{
	unlink("/kernel/x86/microcode/AuthenticAMD.bin");
	unlink("/kernel/x86/microcode/GenuineIntel.bin");
}

/* From here on drivers find their devices, and the kernel logs an error for each USB device, the
 * stick included, because it is not authorised yet. The console shows what Mica's own units report;
 * the kernel's errors are in its log. Only what is worse than an error is still shown. */
static void quiet_kernel(void)
{
	int fd = open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "3", 1) < 0) { /* the console then shows more lines */ }
	close(fd);
}

static _Noreturn void switch_root(char **argv)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys", "/run" };
	static char *const no_environment[] = { NULL };
	stage = "switch";
	say("system image in place after %.1f s, starting systemd", uptime());
	for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
		char target[64];
		snprintf(target, sizeof target, "/system%s", moved[i]);
		need(mount(moved[i], target, NULL, MS_MOVE, NULL), "move", moved[i]);
	}
	unlink("/init");
	need(chdir("/system"), "enter", "/system");
	need(mount(".", "/", NULL, MS_MOVE, NULL), "move to /", "/system");
	need(chroot("."), "change root to", "/system");
	need(chdir("/"), "enter", "/");
	execve("/usr/lib/systemd/systemd", argv, no_environment);
	fail("start", "/usr/lib/systemd/systemd");
}

int main(int argc, char **argv)
{
	(void)argc;
	if (getpid() != 1) {
		fprintf(stderr, "init: must run as process 1\n");
		return 1;
	}
	basics();
	modules();
	microcode();
	root_image();
	write_layer();
	quiet_kernel();
	switch_root(argv);
}
