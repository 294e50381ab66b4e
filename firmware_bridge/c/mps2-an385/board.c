/* ARM MPS2 board with the AN385 image (Cortex-M3, 25 MHz), as QEMU emulates it: CMSDK UART 0, timers 0 and 1. */
#include "board.h"

#define CLOCK_HZ 25000000u
#define NS_PER_TICK (1000000000u / CLOCK_HZ)

typedef struct {
    volatile uint32_t control, value, reload, interrupt;
} timer_registers;

typedef struct {
    volatile uint32_t data, state, control, interrupt, divider;
} uart_registers;

#define TIMER0 ((timer_registers *)0x40000000u)
#define TIMER1 ((timer_registers *)0x40001000u)
#define UART0 ((uart_registers *)0x40004000u)
#define NVIC_ENABLE ((volatile uint32_t *)0xE000E100u)

#define UART0_RX_IRQ 0u
#define TIMER0_IRQ 8u
#define TIMER_ENABLE 1u
#define TIMER_INTERRUPT 8u
#define UART_TX_FULL 1u
#define UART_RX_FULL 2u
#define UART_TX_ENABLE 1u
#define UART_RX_ENABLE 2u
#define UART_RX_INTERRUPT 8u
#define UART_RX_PENDING 2u

/* Conversions per interrupt, as from an I2S or SAI FIFO. Divides every block, and makes 25 MHz / rate whole. */
#define ADC_FIFO 8u

void timer0_handler(void);
void uart0_rx_handler(void);

static uint32_t last_ticks;
static uint64_t past_ticks;

void board_init(void)
{
    UART0->divider = 27u; /* 921600 baud; an emulator sends as fast as it can */
    UART0->control = UART_TX_ENABLE | UART_RX_ENABLE | UART_RX_INTERRUPT;
    TIMER1->reload = 0xFFFFFFFFu;
    TIMER1->control = TIMER_ENABLE; /* counts down all the time */
    last_ticks = TIMER1->value;
    NVIC_ENABLE[0] = (1u << TIMER0_IRQ) | (1u << UART0_RX_IRQ);
}

void board_start_adc(uint32_t rate_hz)
{
    TIMER0->control = 0u;
    TIMER0->reload = (CLOCK_HZ / (rate_hz / ADC_FIFO)) - 1u;
    TIMER0->control = TIMER_ENABLE | TIMER_INTERRUPT;
}

void timer0_handler(void)
{
    TIMER0->interrupt = 1u;
    adc_samples(ADC_FIFO);
}

void uart0_rx_handler(void)
{
    UART0->interrupt = UART_RX_PENDING; /* enough: the main loop is awake and reads the byte */
}

uint64_t board_ns(void)
{
    const uint32_t now = TIMER1->value;
    past_ticks += (uint32_t)(last_ticks - now); /* wraps every 171 s; the main loop calls it far more often */
    last_ticks = now;
    return past_ticks * NS_PER_TICK;
}

int board_receive(uint8_t *byte)
{
    if ((UART0->state & UART_RX_FULL) == 0u) {
        return 0;
    }
    *byte = (uint8_t)UART0->data;
    return 1;
}

void board_send(const uint8_t *data, size_t size)
{
    for (size_t i = 0u; i < size; i++) {
        while ((UART0->state & UART_TX_FULL) != 0u) {
        }
        UART0->data = data[i];
    }
}

uint32_t board_lock(void)
{
    uint32_t before;
    __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(before) : : "memory");
    return before;
}

void board_unlock(uint32_t before)
{
    __asm__ volatile("msr primask, %0" : : "r"(before) : "memory");
}

void board_sleep(void)
{
    __asm__ volatile("wfi" : : : "memory");
}
