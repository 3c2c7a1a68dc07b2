/*
 * Tries each way out of a VM's jail, and says of each how it ended: `ROLE NAME OUTCOME`.
 *
 *   probe ROLE [PATH...]   PATHs are files that it must not be able to open, or with `!` before
 *                          them, to execute
 *
 * OUTCOME is `works` or the error's name. Calls are made with arguments that harm nothing and that a
 * kernel without any filter answers with another error than EPERM or ENOSYS, so that these two mean
 * that the call itself was refused. The last way is the old convention of 32 bits, which ends the
 * process: nothing may follow the line `ROLE int80 trying`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif

static const char *role;
static char path[] = "/proc/self/exe";

static void said(const char *name, long outcome)
{
	int error = errno;

	dprintf(STDOUT_FILENO, "%s %s %s\n", role, name,
		outcome >= 0 ? "works" : strerrorname_np(error));
}

#define TRY(name, ...) \
	do { \
		errno = 0; \
		said(name, syscall(__VA_ARGS__)); \
	} while (0)
#define CALL(name, ...) TRY(#name, SYS_##name __VA_OPT__(,) __VA_ARGS__)

static void sockets(void)
{
	char name[32];

	for (int family = 1; family <= 45; family++) {
		snprintf(name, sizeof(name), "socket-%d", family);
		TRY(name, SYS_socket, family, family == AF_PACKET || family == 16 ? SOCK_RAW : SOCK_DGRAM, 0);
	}
	for (int protocol = 1; protocol < 32; protocol++) {
		snprintf(name, sizeof(name), "socket-netlink-%d", protocol);
		TRY(name, SYS_socket, 16, SOCK_RAW, protocol);
	}
	TRY("socket-vsock-stream", SYS_socket, 40, SOCK_STREAM, 0);
	TRY("socketpair-inet", SYS_socketpair, AF_INET, SOCK_STREAM, 0, (int[2]){ 0 });
	TRY("socketpair-tipc", SYS_socketpair, 30, SOCK_STREAM, 0, (int[2]){ 0 });
	CALL(connect, -1, 0, 0);
	CALL(bind, -1, 0, 0);
}

static void io_uring(void)
{
	uint32_t parameters[30] = { 0 };

	CALL(io_uring_setup, 0, parameters);
	CALL(io_uring_enter, -1, 1, 0, 0, 0, 0);
	CALL(io_uring_register, -1, 0, 0, 0);
}

static void other_processes(void)
{
	char mine[8], theirs[8];
	struct iovec local = { mine, sizeof(mine) }, remote = { theirs, sizeof(theirs) };

	CALL(process_vm_readv, getpid(), &local, 1, &remote, 1, 0);
	CALL(process_vm_writev, getpid(), &local, 1, &remote, 1, 0);
	CALL(process_madvise, -1, &local, 1, MADV_COLD, 0);
	CALL(ptrace, 9999, 0, 0, 0);
	CALL(kcmp, getpid(), getpid(), 0, 0, 0);
	CALL(kill, getpid(), 0);
	CALL(tkill, getpid(), 0);
	CALL(rt_sigqueueinfo, getpid(), 0, 0);
	CALL(pidfd_open, getpid(), 0);
	CALL(pidfd_getfd, -1, 0, 0);
	CALL(pidfd_send_signal, -1, 0, 0, 0);
	CALL(migrate_pages, getpid(), 0, 0, 0);
	CALL(move_pages, 0, 0, 0, 0, 0, 0);
	CALL(userfaultfd, 1);
}

static void keys_and_programs(void)
{
	union bpf_attr program = { 0 };
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event) };

	CALL(add_key, "user", "probe", "x", 1, -2);
	CALL(request_key, "user", "probe", 0, -2);
	CALL(keyctl, 0, -2, 0);
	CALL(bpf, BPF_PROG_GET_NEXT_ID, &program, sizeof(program));
	CALL(perf_event_open, &event, 0, -1, -1, 0);
	CALL(init_module, 0, 0, "");
	CALL(finit_module, -1, "", 0);
	CALL(delete_module, 0, 0);
	CALL(kexec_load, 0, 0, 0, ~0UL);
	CALL(kexec_file_load, -1, -1, 0, 0, ~0UL);
}

static void mounts(void)
{
	CALL(mount, "none", "/nowhere", "tmpfs", 0, 0);
	CALL(umount2, "/nowhere", 0);
	CALL(pivot_root, "/nowhere", "/nowhere");
	CALL(chroot, "/nowhere");
	CALL(fsopen, "no-such-fs", 0);
	CALL(fsconfig, -1, 0, 0, 0, 0);
	CALL(fsmount, -1, 0, 0);
	CALL(open_tree, -1, "nowhere", 0);
	CALL(move_mount, -1, "nowhere", -1, "nowhere", 0);
	CALL(mount_setattr, -1, "nowhere", 0, 0, 0);
	CALL(name_to_handle_at, -1, "nowhere", 0, 0, 0);
	CALL(open_by_handle_at, -1, 0, 0);
	CALL(openat2, -1, "nowhere", 0, 0);
	CALL(fanotify_init, ~0U, 0);
	CALL(quotactl, ~0U, 0, 0, 0);
	CALL(acct, "/nowhere");
	CALL(swapon, "/nowhere", 0);
	CALL(swapoff, "/nowhere");
}

static void namespaces(void)
{
	static const struct {
		const char *name;
		unsigned long flag;
	} kinds[] = {
		{ "mount", CLONE_NEWNS }, { "cgroup", CLONE_NEWCGROUP }, { "uts", CLONE_NEWUTS },
		{ "ipc", CLONE_NEWIPC }, { "user", CLONE_NEWUSER }, { "pid", CLONE_NEWPID },
		{ "net", CLONE_NEWNET },
	};
	uint64_t arguments[11] = { CLONE_NEWUSER | CLONE_FS };
	char name[32];

	/* Together with CLONE_FS, the kernel itself refuses a new user or mount namespace as invalid,
	 * and the others are invalid together with CLONE_THREAD or CLONE_NEWUSER in the same way. */
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		snprintf(name, sizeof(name), "clone-%s", kinds[i].name);
		TRY(name, SYS_clone, kinds[i].flag | CLONE_NEWUSER | CLONE_FS, 0, 0, 0, 0);
		snprintf(name, sizeof(name), "clone-thread-%s", kinds[i].name);
		TRY(name, SYS_clone,
		    kinds[i].flag | CLONE_NEWUSER | CLONE_FS | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD,
		    0, 0, 0, 0);
		snprintf(name, sizeof(name), "unshare-%s", kinds[i].name);
		TRY(name, SYS_unshare, kinds[i].flag | 1);
	}
	TRY("clone-process", SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0);
	CALL(clone3, arguments, sizeof(arguments));
	CALL(setns, -1, 0);
}

static void memory(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *at;

	TRY("memfd-for-programs", SYS_memfd_create, "probe", MFD_EXEC);
	at = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE | PROT_EXEC,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	said("mmap-write-execute", at == MAP_FAILED ? -1 : 0);
	at = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	errno = 0;
	said("mprotect-execute", mprotect(at, (size_t)page, PROT_READ | PROT_EXEC));
	CALL(pkey_mprotect, at, page, PROT_READ | PROT_EXEC, -1);
	CALL(personality, 0xffffffffUL);
	CALL(remap_file_pages, at, 0, 0, 0, 0);
	CALL(shmget, 0x6d696361, 0, 0);
	CALL(shmat, -1, 0, 0);
	CALL(msgget, 0x6d696361, 0);
	CALL(semget, 0x6d696361, 0, 0);
	CALL(mq_open, "probe", 0, 0, 0);
	CALL(mlock, at, page);
	CALL(mlockall, 0);
	CALL(mbind, at, page, 0, 0, 0, ~0U);
}

static void powers(void)
{
	struct rlimit limit = { 0 };

	CALL(setuid, getuid());
	CALL(setresuid, -1, -1, -1);
	CALL(setgid, getgid());
	CALL(setgroups, ~0U, 0);
	CALL(capset, 0, 0);
	CALL(chown, "/nowhere", -1, -1);
	CALL(fchownat, -1, "nowhere", -1, -1, 0);
	CALL(mknodat, -1, "nowhere", 0, 0);
	CALL(symlinkat, "nowhere", -1, "nowhere");
	CALL(linkat, -1, "nowhere", -1, "nowhere", 0);
	CALL(renameat2, -1, "nowhere", -1, "nowhere", 2);
	CALL(setrlimit, 99, &limit);
	TRY("prlimit64-set", SYS_prlimit64, 0, 99, &limit, 0);
	CALL(setpriority, 99, 0, 0);
	CALL(ioprio_set, 99, 0, 0);
	CALL(sched_setscheduler, -1, 0, 0);
	CALL(sched_setattr, -1, 0, 0);
	CALL(settimeofday, (void *)1, 0);
	CALL(clock_settime, 99, 0);
	CALL(adjtimex, 0);
	CALL(sethostname, "", -1);
	CALL(setdomainname, "", -1);
	CALL(syslog, 99, 0, 0);
	CALL(reboot, 0, 0, 0, 0);
	CALL(iopl, 9);
	CALL(ioperm, ~0UL, 1, 1);
	CALL(modify_ldt, 9, 0, 0);
	CALL(vhangup);
	TRY("ioctl-terminal-input", SYS_ioctl, -1, 0x5412, 0);
	TRY("prctl-set-mm", SYS_prctl, 35, 0, 0, 0, 0);
	TRY("prctl-keep-caps", SYS_prctl, 8, 9, 0, 0, 0);
}

static void narrower(void)
{
	CALL(io_setup, 0, 0);
	CALL(memfd_create, 0, 0);
	CALL(accept4, -1, 0, 0, 0);
	CALL(listen, -1, 0);
	CALL(ioctl, -1, 0xae00, 0);
	CALL(socketpair, AF_UNIX, 99, 0, 0);
	CALL(dup, -1);
	CALL(epoll_create1, ~0U);
}

static void execute(const char *name, const char *file)
{
	TRY(name, SYS_execve, file, (char *[]){ "probe", "again", NULL }, (char *[]){ NULL });
}

/* Itself, copied into memory. Where that works, it is the last thing that happens. */
static void execute_memory(void)
{
	static char buffer[1 << 16];
	int fd = (int)syscall(SYS_memfd_create, "probe", 0);
	int own = open(path, O_RDONLY);
	char name[32];
	ssize_t count;

	if (fd < 0 || own < 0) {
		said("memfd-execveat", -1);
		return;
	}
	while ((count = read(own, buffer, sizeof(buffer))) > 0)
		if (write(fd, buffer, (size_t)count) != count)
			break;
	TRY("memfd-execveat", SYS_execveat, fd, "", (char *[]){ "probe", "again", NULL },
	    (char *[]){ NULL }, AT_EMPTY_PATH);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	execute("memfd-execve", name);
}

int main(int argc, char *argv[])
{
	if (argc < 2)
		return 2;
	role = argv[1];
	if (!strcmp(role, "again")) {
		dprintf(STDOUT_FILENO, "a program in memory runs\n");
		return 0;
	}
	sockets();
	io_uring();
	other_processes();
	keys_and_programs();
	mounts();
	namespaces();
	memory();
	powers();
	if (!strcmp(role, "swtpm"))
		narrower();
	for (int i = 2; i < argc; i++) {
		const char *file = argv[i] + (argv[i][0] == '!');
		char name[256];

		snprintf(name, sizeof(name), "%s:%s", file == argv[i] ? "open" : "execve", file);
		errno = 0;
		if (file == argv[i])
			said(name, open(file, O_RDONLY | O_NONBLOCK));
		else
			execute(name, file);
	}
	execute_memory();
	dprintf(STDOUT_FILENO, "%s int80 trying\n", role);
	{
		long outcome = 20; /* getpid */

		__asm__ volatile("int $0x80" : "+a"(outcome) : : "memory");
		dprintf(STDOUT_FILENO, "%s int80 works\n", role);
	}
	return 0;
}
