// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Starts another kernel in place of this one, or has it start where this one
 * panics. The system call takes any arm64 Image, and hands over what there is to
 * hand over if KHO is on.
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tool.h"

static void load(char **arguments, unsigned long flags)
{
	const char *line = arguments[2];
	int initrd = *arguments[1] ? open(arguments[1], O_RDONLY) : -1;
	int image = open(arguments[0], O_RDONLY);

	if (image < 0)
		fail(arguments[0]);
	if (initrd < 0 && *arguments[1])
		fail(arguments[1]);
	/* No initrd is an empty word. */
	if (initrd < 0)
		flags |= KEXEC_FILE_NO_INITRAMFS;
	if (syscall(SYS_kexec_file_load, image, initrd, strlen(line) + 1, line, flags))
		fail("kexec_file_load");
}

int load_crash_kernel(char **arguments)
{
	load(arguments, KEXEC_FILE_ON_CRASH);
	return 0;
}

int start_kernel(char **arguments)
{
	load(arguments, 0);
	printf("warmbus: linux: starting %s\n", arguments[0]);
	fflush(stdout);
	sync();
	reboot(RB_KEXEC);
	fail("reboot into the kernel");
}
