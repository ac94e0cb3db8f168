// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Memory that is used once, so that nothing of what it held before is left.
 */
#include <string.h>
#include <sys/mman.h>

#include "tool.h"

#define MIB (1024 * 1024)
/* How much is used from one sign of life to the next. */
#define STEP 256

int fill(char **arguments)
{
	uint32_t size = number(arguments[0]), done;

	for (done = 0; done < size; done++) {
		void *piece = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (piece == MAP_FAILED)
			fail("memory to fill");
		memset(piece, 0xa5, MIB);
		if (done % STEP == STEP - 1)
			printf("warmbus: linux: %u MiB to go\n", size - done - 1);
	}
	printf("warmbus: linux: filled %u MiB\n", size);
	return 0;
}
