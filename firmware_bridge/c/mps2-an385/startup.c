/* Vector table and what has to happen before main. */
#include <stdint.h>
#include <string.h>

extern uint32_t data_load, data_begin, data_end, bss_begin, bss_end, stack_top; /* link.ld */

int main(void);
void reset_handler(void);
void fault_handler(void);
void timer0_handler(void);
void uart0_rx_handler(void);

void reset_handler(void)
{
    (void)memcpy(&data_begin, &data_load, (size_t)((uintptr_t)&data_end - (uintptr_t)&data_begin));
    (void)memset(&bss_begin, 0, (size_t)((uintptr_t)&bss_end - (uintptr_t)&bss_begin));
    (void)main();
    fault_handler();
}

void fault_handler(void)
{
    for (;;) {
    }
}

typedef union {
    const void *stack;
    void (*handler)(void);
} vector;

__attribute__((section(".vectors"), used)) static const vector vectors[16 + 32] = {
    {.stack = &stack_top},        {.handler = reset_handler},   {.handler = fault_handler},
    {.handler = fault_handler},   {.handler = fault_handler},   {.handler = fault_handler},
    {.handler = fault_handler},   [16 + 0] = {.handler = uart0_rx_handler},
    [16 + 8] = {.handler = timer0_handler}};
