/* What the application needs of a board: port these seven functions and the program runs elsewhere. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_init(void);

/* Calls adc_samples(n) from an interrupt so that rate_hz conversions a second are due. rate_hz: 4000, 8000, 16000. */
void board_start_adc(uint32_t rate_hz);
void adc_samples(uint32_t count); /* the application's */

/* Time since the start; never called from the interrupt. */
uint64_t board_ns(void);

/* Takes one received byte; 0 if there is none. */
int board_receive(uint8_t *byte);

/* Sends; waits while the link does not take bytes, the converter goes on meanwhile. */
void board_send(const uint8_t *data, size_t size);

/* No interrupt between these two. */
uint32_t board_lock(void);
void board_unlock(uint32_t before);

/* Until the next interrupt. */
void board_sleep(void);

#endif
