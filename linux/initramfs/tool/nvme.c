// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * NVMe Virtualization Management (NVM Express Base Specification 2.0, section
 * 5.42): gives queues and interrupts of a controller to its virtual functions.
 */
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>

#include "tool.h"

#define VIRTUALIZATION_MANAGEMENT 0x1c

int virtualize(char **arguments)
{
	uint32_t controller = number(arguments[1]), action = number(arguments[2]);
	uint32_t resource = number(arguments[3]), count = number(arguments[4]);
	struct nvme_passthru_cmd command = {
		.opcode = VIRTUALIZATION_MANAGEMENT,
		.cdw10 = controller << 16 | resource << 8 | action,
		.cdw11 = count,
	};
	int device = open(arguments[0], O_RDWR), status;

	if (device < 0)
		fail(arguments[0]);
	status = ioctl(device, NVME_IOCTL_ADMIN_CMD, &command);
	if (status < 0)
		fail("NVME_IOCTL_ADMIN_CMD");
	if (status > 0)
		printf("warmbus: linux: tool: %s: status %#x for action %u\n", arguments[0],
		       status, action);
	return status != 0;
}
