/* What main.c needs of a board; each is in the file of its family. */
#include <stdint.h>

void board_write(const char *text);
void board_exit(int error);
/* A counter that runs, how far it ran since, and how far it runs in 200,000 instructions; 0 where there is none. */
uint32_t board_now(void);
uint32_t board_since(uint32_t before);
extern uint32_t board_loop;
/* The lowest word of the stack; NULL where its use is not told. */
uint32_t *board_stack(void);
