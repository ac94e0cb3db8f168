// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Configuration space as the hardware has it: through /dev/mem, past the PCI
 * core and whatever it remembers.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

#define DEVICES "/sys/bus/pci/devices"
#define FUNCTION_SIZE 4096
/* A register may change by itself between two reads of it. */
#define TRIES 4

/* The window of the first host bridge, which starts at bus 0. */
static uint64_t window(void)
{
	FILE *list = fopen("/proc/iomem", "r");
	unsigned long long first;
	char line[256];

	if (!list)
		fail("/proc/iomem");
	while (fgets(line, sizeof(line), list)) {
		if (strstr(line, ": PCI ECAM") && sscanf(line, "%llx", &first) == 1) {
			fclose(list);
			return first;
		}
	}
	fail("no ECAM window in /proc/iomem");
}

static volatile uint8_t *map(uint32_t bus, uint32_t devfn)
{
	int memory = open("/dev/mem", O_RDWR | O_SYNC);
	off_t at = window() + (bus << 20) + (devfn << 12);
	/* A page of Linux may have several functions. */
	size_t inside = at & (sysconf(_SC_PAGESIZE) - 1);
	uint8_t *mapped;

	if (memory < 0)
		fail("/dev/mem");
	mapped = mmap(NULL, inside + FUNCTION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory,
		      at - inside);
	if (mapped == MAP_FAILED)
		fail("mmap of the ECAM window");
	close(memory);
	return mapped + inside;
}

static void unmap(volatile void *mapped)
{
	size_t inside = (uintptr_t)mapped & (sysconf(_SC_PAGESIZE) - 1);

	munmap((uint8_t *)mapped - inside, inside + FUNCTION_SIZE);
}

/* The registers of a function by its name, as the hardware has them. */
volatile uint8_t *configuration_space(const char *function)
{
	uint32_t bus, device, number;

	if (sscanf(function, "0000:%x:%x.%x", &bus, &device, &number) != 3)
		fail(function);
	return map(bus, device << 3 | number);
}

/* Compares one function, and returns how many of its dwords differ. */
static uint32_t compare_function(const char *name, uint32_t *compared)
{
	uint32_t at, differ = 0;
	volatile uint32_t *hardware;
	char path[320];
	struct stat about;
	int file;

	hardware = (volatile uint32_t *)configuration_space(name);
	snprintf(path, sizeof(path), DEVICES "/%s/config", name);
	file = open(path, O_RDONLY);
	if (file < 0 || fstat(file, &about))
		fail(path);
	for (at = 0; at < about.st_size; at += 4) {
		uint32_t told = 0, read = 0;
		int try;

		for (try = 0; try < TRIES; try++) {
			if (pread(file, &told, 4, at) != 4)
				fail(path);
			read = hardware[at / 4];
			if (told == read)
				break;
		}
		*compared += 1;
		if (told != read) {
			differ++;
			printf("warmbus: linux: differs: %s %#x: Linux reads %#010x, hardware %#010x\n",
			       name, at, told, read);
		}
	}
	close(file);
	unmap(hardware);
	return differ;
}

/* Compares what Linux reads of all functions with what the hardware returns. */
int compare(char **arguments)
{
	uint32_t functions = 0, dwords = 0, differ = 0;
	DIR *devices = opendir(DEVICES);
	struct dirent *entry;

	(void)arguments;
	if (!devices)
		fail(DEVICES);
	while ((entry = readdir(devices))) {
		if (entry->d_name[0] == '.')
			continue;
		functions++;
		differ += compare_function(entry->d_name, &dwords);
	}
	closedir(devices);
	printf("warmbus: linux: compared %u dwords of %u functions: %u differ\n", dwords,
	       functions, differ);
	return differ != 0;
}

/*
 * Leaves a mark in a trace of the window: reads one byte, at the offset of the
 * number, of a function that nobody else asks for.
 */
int mark(char **arguments)
{
	uint32_t at = number(arguments[0]);

	if (at >= FUNCTION_SIZE)
		return 2;
	(void)map(0xff, 0xff)[at];
	return 0;
}
