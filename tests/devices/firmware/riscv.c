/* 32-bit RISC-V in qemu-system-riscv32: the start, and the debugger's calls as the console. */
#include "board.h"

extern uint32_t bss_begin[], bss_end[];
int main(void);
uint32_t board_loop;

/* The three instructions are how QEMU tells such a call from a break. */
static long call(long number, const void *argument) {
    register long a0 __asm__("a0") = number;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(
        ".balign 16\n.option push\n.option norvc\n"
        "slli x0, x0, 0x1f\n ebreak\n srai x0, x0, 7\n"
        ".option pop"
        : "+r"(a0)
        : "r"(a1)
        : "memory");
    return a0;
}

void board_write(const char *text) { call(4, text); }

void board_exit(int error) {
    uint32_t block[2] = {0x20026, (uint32_t)error};
    call(0x20, block);
    for (;;) {}
}

/* What QEMU counts of instructions, where it runs with -icount. */
uint32_t board_now(void) {
    uint32_t count;
    __asm__ volatile("csrr %0, instret" : "=r"(count));
    return count;
}

uint32_t board_since(uint32_t before) { return board_now() - before; }
uint32_t *board_stack(void) { return bss_end; }

__attribute__((used)) static void begin(void) {
    uint32_t *at;
    for (at = bss_begin; at < bss_end; at++) *(volatile uint32_t *)at = 0;
    board_loop = 200000;
    main();
}

__attribute__((naked, used, section(".vectors"))) void reset(void) {
    __asm__ volatile(
        ".option push\n.option norelax\n la gp, __global_pointer$\n.option pop\n"
        "la sp, stack_top\n"
#if defined(__riscv_flen)
        "li t0, 0x6000\n csrs mstatus, t0\n"
#endif
        "j begin");
}
