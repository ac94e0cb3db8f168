/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the parts of the tool share. */
#ifndef TOOL_H
#define TOOL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program with status 1 and a line that says what was tried. */
_Noreturn void fail(const char *what);

/* The number in `text`, decimal or with 0x. */
uint32_t number(const char *text);

int compare(char **arguments);
int fill(char **arguments);
volatile uint8_t *configuration_space(const char *function);
int guest_reset(char **arguments);
int live_load(char **arguments);
int live_save(char **arguments);
int load_crash_kernel(char **arguments);
int mark(char **arguments);
int start_kernel(char **arguments);
int virtualize(char **arguments);
int virtual_machine(char **arguments);
int backdoor_reset(char **arguments);

#endif
