/* Cortex-M in qemu-system-arm: vectors, the floating-point unit, and the debugger's calls as the console. */
#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define TICKS 0xffffffu /* SysTick counts 24 bits down */

extern uint32_t bss_begin[], bss_end[], stack_top[];
int main(void);
uint32_t board_loop;

static int32_t call(uint32_t number, const void *argument) {
    register uint32_t r0 __asm__("r0") = number;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

void board_write(const char *text) { call(4, text); }

void board_exit(int error) {
    uint32_t block[2] = {0x20026, (uint32_t)error};
    call(0x20, block);
    for (;;) {}
}

uint32_t board_now(void) { return REGISTER(0xe000e018); }
uint32_t board_since(uint32_t before) { return (before - board_now()) & TICKS; }
uint32_t *board_stack(void) { return bss_end; }

static void begin_counting(void) {
    uint32_t loops = 100000, before;
    REGISTER(0xe000e014) = TICKS;
    REGISTER(0xe000e018) = 0;
    REGISTER(0xe000e010) = 5;
    before = board_now();
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(loops) : : "cc");
    board_loop = board_since(before);
}

void reset(void);
void reset(void) {
    uint32_t *at;
#if defined(__ARM_FP)
    REGISTER(0xe000ed88) |= 0xfu << 20;
    __asm__ volatile("dsb\n isb");
#endif
    for (at = bss_begin; at < bss_end; at++) *(volatile uint32_t *)at = 0;
    begin_counting();
    main();
}

static void fault(void) {
    board_write("fault\n");
    board_exit(2);
}

typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)(void *)stack_top, reset, fault, fault, fault, fault, fault};
