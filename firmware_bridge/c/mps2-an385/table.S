/* The sound that the converter hears: 16-bit samples at 16 kHz, made by make_table.py. */
    .syntax unified
    .section .rodata.lung_table, "a"
    .balign 4
    .global lung_table
    .global lung_table_end
lung_table:
    .incbin "table.bin"
lung_table_end:
