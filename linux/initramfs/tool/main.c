// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What the test init cannot do in a shell. Each part has a file.
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

static const struct {
	const char *name;
	const char *arguments;
	int count;
	int (*run)(char **arguments);
} parts[] = {
	{ "compare", "", 0, compare },
	{ "fill", "MIB", 1, fill },
	{ "mark", "NUMBER", 1, mark },
	{ "live-save", "", 0, live_save },
	{ "live-load", "", 0, live_load },
	{ "kexec", "IMAGE INITRD COMMAND-LINE", 3, start_kernel },
	{ "crash-kernel", "IMAGE INITRD COMMAND-LINE", 3, load_crash_kernel },
	{ "virt-mgmt", "DEVICE CONTROLLER ACTION RESOURCE NUMBER", 5, virtualize },
	{ "vm", "FUNCTION whole|needed", 2, virtual_machine },
	{ "backdoor", "FUNCTION", 1, backdoor_reset },
	{ "guest-reset", "FUNCTION", 1, guest_reset },
};

void fail(const char *what)
{
	printf("warmbus: linux: tool: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint32_t number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (end == text || *end || value > UINT32_MAX) {
		errno = EINVAL;
		fail(text);
	}
	return value;
}

int main(int count, char **words)
{
	size_t part;

	for (part = 0; part < sizeof(parts) / sizeof(*parts); part++) {
		if (count == parts[part].count + 2 && !strcmp(words[1], parts[part].name))
			return parts[part].run(words + 2);
	}
	for (part = 0; part < sizeof(parts) / sizeof(*parts); part++)
		fprintf(stderr, "tool %s %s\n", parts[part].name, parts[part].arguments);
	return 2;
}
