// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Does to a function, which vfio-pci drives, what a virtual machine does that
 * starts with it and ends: first the monitor, then its guest, whose accesses to
 * configuration space come through the monitor.
 */
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tool.h"

#define CONFIG_SIZE 4096
#define MOST_CAPABILITIES 48
#define MOST_EXTENDED 256

struct machine {
	int container, group, device;
	/* Of the region that is configuration space. */
	uint64_t at, size;
};

static uint32_t get(struct machine *vm, uint32_t at, uint32_t size)
{
	uint32_t value = 0;

	if (pread(vm->device, &value, size, vm->at + at) != size)
		fail("read of configuration space");
	return value;
}

static void set(struct machine *vm, uint32_t at, uint32_t value, uint32_t size)
{
	if (pwrite(vm->device, &value, size, vm->at + at) != size)
		fail("write to configuration space");
}

/* The number of the function's group: the last part of a link. */
static const char *group_of(const char *function)
{
	static char target[256];
	char path[256];
	ssize_t length;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", function);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		fail(path);
	target[length] = 0;
	return strrchr(target, '/') + 1;
}

static void open_function(struct machine *vm, const char *function)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_device_info info = { .argsz = sizeof(info) };
	char path[320];

	vm->container = open("/dev/vfio/vfio", O_RDWR);
	if (vm->container < 0 || ioctl(vm->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION)
		fail("/dev/vfio/vfio");
	snprintf(path, sizeof(path), "/dev/vfio/%s", group_of(function));
	vm->group = open(path, O_RDWR);
	if (vm->group < 0)
		fail(path);
	if (ioctl(vm->group, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		fail("the group is not viable");
	if (ioctl(vm->group, VFIO_GROUP_SET_CONTAINER, &vm->container) ||
	    ioctl(vm->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		fail("VFIO_SET_IOMMU");
	vm->device = ioctl(vm->group, VFIO_GROUP_GET_DEVICE_FD, function);
	if (vm->device < 0 || ioctl(vm->device, VFIO_DEVICE_GET_INFO, &info))
		fail("VFIO_GROUP_GET_DEVICE_FD");
}

/*
 * What the monitor asks before it shows the function to a guest. One monitor
 * reads `whole` configuration space first, another what is needed.
 */
static void realize(struct machine *vm, int whole)
{
	struct vfio_region_info region = { .argsz = sizeof(region) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq) };
	static uint8_t all[CONFIG_SIZE];
	uint32_t index;

	for (index = 0; index <= VFIO_PCI_CONFIG_REGION_INDEX; index++) {
		region.argsz = sizeof(region);
		region.index = index;
		if (ioctl(vm->device, VFIO_DEVICE_GET_REGION_INFO, &region))
			fail("VFIO_DEVICE_GET_REGION_INFO");
	}
	vm->at = region.offset;
	vm->size = region.size < CONFIG_SIZE ? region.size : CONFIG_SIZE;
	for (index = 0; index <= VFIO_PCI_ERR_IRQ_INDEX; index++) {
		irq.index = index;
		/* Not every function has every kind. */
		(void)ioctl(vm->device, VFIO_DEVICE_GET_IRQ_INFO, &irq);
	}
	if (whole && pread(vm->device, all, vm->size, vm->at) != (ssize_t)vm->size)
		fail("read of all configuration space");
}

/* The offset of a capability, 0 if there is none. All are looked at. */
static uint32_t walk(struct machine *vm, uint32_t wanted)
{
	uint32_t at, left = MOST_CAPABILITIES, found = 0;

	if (!(get(vm, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST))
		return 0;
	for (at = get(vm, PCI_CAPABILITY_LIST, 1); at && left; left--) {
		uint32_t head = get(vm, at & ~3u, 2);

		if ((head & 0xff) == wanted)
			found = at & ~3u;
		at = head >> 8;
	}
	return found;
}

static void walk_extended(struct machine *vm)
{
	uint32_t at = PCI_CFG_SPACE_SIZE, left = MOST_EXTENDED;

	for (; at >= PCI_CFG_SPACE_SIZE && at < vm->size && left; left--) {
		uint32_t head = get(vm, at, 4);

		if (!head || head == UINT32_MAX)
			break;
		at = PCI_EXT_CAP_NEXT(head);
	}
}

/* Finds a function and gives it addresses, as a guest does. */
static void enumerate(struct machine *vm)
{
	uint32_t bar;

	get(vm, PCI_VENDOR_ID, 4);
	get(vm, PCI_HEADER_TYPE, 1);
	get(vm, PCI_CLASS_REVISION, 4);
	get(vm, PCI_SUBSYSTEM_VENDOR_ID, 4);
	get(vm, PCI_INTERRUPT_PIN, 1);
	set(vm, PCI_COMMAND, get(vm, PCI_COMMAND, 2) & ~3u, 2);
	for (bar = PCI_BASE_ADDRESS_0; bar <= PCI_BASE_ADDRESS_5; bar += 4) {
		uint32_t before = get(vm, bar, 4);

		set(vm, bar, UINT32_MAX, 4);
		get(vm, bar, 4);
		set(vm, bar, before, 4);
	}
	walk(vm, PCI_CAP_ID_PM);
	walk_extended(vm);
}

/* Takes the function into use, as a driver of the guest does. */
static void drive(struct machine *vm)
{
	uint32_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	uint32_t express, table = walk(vm, PCI_CAP_ID_MSIX);

	set(vm, PCI_COMMAND, get(vm, PCI_COMMAND, 2) | command, 2);
	express = walk(vm, PCI_CAP_ID_EXP);
	if (express) {
		get(vm, express + PCI_EXP_FLAGS, 2);
		get(vm, express + PCI_EXP_DEVCAP, 4);
		get(vm, express + PCI_EXP_DEVCTL, 2);
		get(vm, express + PCI_EXP_LNKCAP, 4);
	}
	if (table) {
		struct {
			struct vfio_irq_set set;
			int32_t event;
		} request = { .set = { .argsz = sizeof(request),
				       .flags = VFIO_IRQ_SET_DATA_EVENTFD |
						VFIO_IRQ_SET_ACTION_TRIGGER,
				       .index = VFIO_PCI_MSIX_IRQ_INDEX,
				       .count = 1 } };
		uint32_t control = get(vm, table + PCI_MSIX_FLAGS, 2);

		request.event = eventfd(0, EFD_CLOEXEC);
		if (request.event < 0 || ioctl(vm->device, VFIO_DEVICE_SET_IRQS, &request))
			fail("VFIO_DEVICE_SET_IRQS");
		set(vm, table + PCI_MSIX_FLAGS, control | PCI_MSIX_FLAGS_ENABLE, 2);
		get(vm, table + PCI_MSIX_FLAGS, 2);
		request.set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
		request.set.count = 0;
		if (ioctl(vm->device, VFIO_DEVICE_SET_IRQS, &request))
			fail("VFIO_DEVICE_SET_IRQS");
		close(request.event);
	}
	set(vm, PCI_COMMAND, get(vm, PCI_COMMAND, 2) & ~command, 2);
}

static void close_function(struct machine *vm)
{
	close(vm->device);
	close(vm->group);
	close(vm->container);
}

int virtual_machine(char **arguments)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct machine vm;

	/* A debugger notes where the start begins and ends. */
	sched_yield();
	open_function(&vm, arguments[0]);
	realize(&vm, !strcmp(arguments[1], "whole"));
	if (ioctl(vm.device, VFIO_DEVICE_GET_INFO, &info))
		fail("VFIO_DEVICE_GET_INFO");
	if ((info.flags & VFIO_DEVICE_FLAGS_RESET) && ioctl(vm.device, VFIO_DEVICE_RESET))
		fail("VFIO_DEVICE_RESET");
	enumerate(&vm);
	drive(&vm);
	sched_yield();
	close_function(&vm);
	printf("warmbus: linux: a virtual machine had %s\n", arguments[0]);
	return 0;
}

/* A guest begins to use its function, whose BARs are remembered. */
static void begin_use(struct machine *vm, const char *function,
		      volatile uint32_t *bars, uint32_t before[6])
{
	uint32_t bar;

	open_function(vm, function);
	realize(vm, 0);
	set(vm, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (bar = 0; bar < 6; bar++)
		before[bar] = bars[bar];
}

/* It uses the function again, after a reset. Returns whether its BARs are as before. */
static int use_again(struct machine *vm, volatile uint32_t *bars, const uint32_t before[6])
{
	uint32_t bar, restored = 1;

	set(vm, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (bar = 0; bar < 6; bar++)
		restored &= bars[bar] == before[bar];
	return restored;
}

/*
 * A guest makes its function reset itself through a register of a BAR, which
 * neither VFIO nor the PCI core sees, and uses it again. VFIO notices by what
 * Command and the BARs read, and restores the BARs.
 */
int backdoor_reset(char **arguments)
{
	volatile uint8_t *hardware = configuration_space(arguments[0]);
	volatile uint32_t *bars = (volatile uint32_t *)(hardware + PCI_BASE_ADDRESS_0);
	uint32_t before[6], bar;
	int restored;
	struct machine vm;

	begin_use(&vm, arguments[0], bars, before);

	*(volatile uint16_t *)(hardware + PCI_COMMAND) = 0;
	for (bar = 0; bar < 6; bar++)
		bars[bar] = 0;

	restored = use_again(&vm, bars, before);
	printf("warmbus: linux: after a reset of its own %s has BAR 0 %#x, %s\n",
	       arguments[0], bars[0], restored ? "as before" : "LOST");
	close_function(&vm);
	return !restored;
}

/*
 * A guest resets its function by FLR, as VFIO shows it: VFIO resets the function
 * and restores what the host had set.
 */
int guest_reset(char **arguments)
{
	volatile uint8_t *hardware = configuration_space(arguments[0]);
	volatile uint32_t *bars = (volatile uint32_t *)(hardware + PCI_BASE_ADDRESS_0);
	uint32_t before[6], control, express;
	int restored;
	struct machine vm;

	begin_use(&vm, arguments[0], bars, before);

	express = walk(&vm, PCI_CAP_ID_EXP);
	control = get(&vm, express + PCI_EXP_DEVCTL, 2);
	set(&vm, express + PCI_EXP_DEVCTL, control | PCI_EXP_DEVCTL_BCR_FLR, 2);

	restored = use_again(&vm, bars, before);
	printf("warmbus: linux: after a reset by its guest %s has BAR 0 %#x, Command %#x, %s\n",
	       arguments[0], bars[0], *(volatile uint16_t *)(hardware + PCI_COMMAND) & 6,
	       restored ? "as before" : "LOST");
	close_function(&vm);
	return !restored;
}
