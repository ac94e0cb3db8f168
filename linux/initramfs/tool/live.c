// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Memory that outlives this kernel: a memfd in a session of the live update
 * orchestrator (Documentation/userspace-api/liveupdate.rst).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tool.h"

/* Of <linux/liveupdate.h>, which older C libraries do not have. */
struct session {
	uint32_t size;
	int32_t fd;
	uint8_t name[64];
};

struct session_fd {
	uint32_t size;
	int32_t fd;
	uint64_t token __attribute__((aligned(8)));
};

struct session_finish {
	uint32_t size;
	uint32_t reserved;
};

#define CREATE_SESSION _IO(0xba, 0x00)
#define RETRIEVE_SESSION _IO(0xba, 0x01)
#define PRESERVE_FD _IO(0xba, 0x40)
#define RETRIEVE_FD _IO(0xba, 0x41)
#define FINISH _IO(0xba, 0x42)

#define BYTES (8UL << 20)
#define WORDS (BYTES / sizeof(uint64_t))
#define TOKEN 1

static uint64_t word(uint64_t index)
{
	return index * 0x9e3779b97f4a7c15;
}

static int session(unsigned long request)
{
	struct session session = { .size = sizeof(session), .name = "warmbus" };
	int device = open("/dev/liveupdate", O_RDWR);

	if (device < 0)
		fail("/dev/liveupdate");
	if (ioctl(device, request, &session))
		fail("session");
	return session.fd;
}

static uint64_t *map(int memory, int protection)
{
	uint64_t *words = mmap(NULL, BYTES, protection, MAP_SHARED, memory, 0);

	if (words == MAP_FAILED)
		fail("mmap");
	return words;
}

int live_save(char **arguments)
{
	struct session_fd file = { .size = sizeof(file), .token = TOKEN };
	int from = session(CREATE_SESSION);
	uint64_t *words, index;

	(void)arguments;
	file.fd = syscall(SYS_memfd_create, "pattern", 0);
	if (file.fd < 0 || ftruncate(file.fd, BYTES))
		fail("memfd_create");
	words = map(file.fd, PROT_READ | PROT_WRITE);
	for (index = 0; index < WORDS; index++)
		words[index] = word(index);
	if (ioctl(from, PRESERVE_FD, &file))
		fail("preserve");
	printf("warmbus: linux: live: %lu bytes saved\n", BYTES);
	fflush(stdout);
	/* The session lives as long as somebody has it open. */
	if (fork() == 0) {
		setsid();
		for (;;)
			pause();
	}
	return 0;
}

int live_load(char **arguments)
{
	struct session_fd file = { .size = sizeof(file), .token = TOKEN };
	struct session_finish finish = { .size = sizeof(finish) };
	int from = session(RETRIEVE_SESSION);
	uint64_t *words, index, wrong = 0;

	(void)arguments;
	if (ioctl(from, RETRIEVE_FD, &file))
		fail("retrieve");
	words = map(file.fd, PROT_READ);
	for (index = 0; index < WORDS; index++)
		wrong += words[index] != word(index);
	if (ioctl(from, FINISH, &finish))
		fail("finish");
	printf("warmbus: linux: live: %lu bytes, %lu words differ\n", BYTES, (unsigned long)wrong);
	return 0;
}
