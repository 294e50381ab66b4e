/* The interface to a board: port these functions and the program runs on another one. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_init(void);

/* Calls adc_samples(n) from an interrupt, rate_hz conversions a second. rate_hz: 4000, 8000, 16000. */
void board_start_adc(uint32_t rate_hz);
void adc_samples(uint32_t count); /* defined by the application */

/* Time since the start; never called from the interrupt. */
uint64_t board_ns(void);

/* Reads one received byte; returns 0 if there is none. */
int board_receive(uint8_t *byte);

/* Sends; waits while the link accepts no bytes. The converter goes on meanwhile. */
void board_send(const uint8_t *data, size_t size);

/* Disable interrupts, and restore the state before. */
uint32_t board_lock(void);
void board_unlock(uint32_t before);

/* Waits for the next interrupt. */
void board_sleep(void);

#endif
