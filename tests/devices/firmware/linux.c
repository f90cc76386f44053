/* A program for Linux, in qemu-user: nothing is counted there. */
#include "board.h"
#include <stdio.h>
#include <stdlib.h>

uint32_t board_loop = 0;

void board_write(const char *text) { fputs(text, stdout); }
void board_exit(int error) { exit(error); }
uint32_t board_now(void) { return 0; }
uint32_t board_since(uint32_t before) { return before; }
uint32_t *board_stack(void) { return NULL; }
