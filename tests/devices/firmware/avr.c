/* AVR in simavr: the serial port as the console, sleep without interrupts as the end. Cycles are counted, not
   instructions, by timer 1 in steps of 1,024. */
#include "board.h"
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

extern uint32_t __heap_start[]; /* the end of what is static */
uint32_t board_loop = 200000;

void board_write(const char *text) {
    UCSR0B = 1 << TXEN0;
    for (; *text; text++) {
        while (!(UCSR0A & 1 << UDRE0)) {}
        UDR0 = (uint8_t)*text;
    }
}

void board_exit(int error) {
    if (error) board_write("failed\n");
    cli();
    sleep_enable();
    sleep_cpu();
    for (;;) {}
}

uint32_t board_now(void) {
    TCCR1B = 1 << CS12 | 1 << CS10;
    return TCNT1;
}

uint32_t board_since(uint32_t before) { return (uint32_t)(uint16_t)(TCNT1 - (uint16_t)before) * 1024; }
uint32_t *board_stack(void) { return __heap_start; }
