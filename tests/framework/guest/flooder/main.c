/* A hostile guest of an old PC, started as the other one is (old_pc/start.S). For ever, as fast as
 * it can, it
 *
 *   reports a panic, and a crash kernel          an event of QEMU's each time, which it doesn't limit
 *   writes to its serial line                    without waiting until that is ready
 *   hands impossible queues to virtio devices    of the kind before version 1.0: QEMU writes a line
 *                                                to its log, and takes a reset and the same again
 *
 * Sources: docs/specs/pvpanic.rst of QEMU; virtio 1.2, sections 2.7 and 4.1.4.8 (legacy interface).
 */
#include <stdint.h>

#define COM1 0x3f8
#define QUEUE 0x20000
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define FUNCTIONS 256
#define MAX 8

volatile uint32_t ticks; /* start.S counts in it; no timer runs here */

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text)
{
    for (; *text; text++)
        outb(COM1, *text);
}

static uint32_t pci_read(int function, int offset)
{
    outl(PCI_ADDRESS, 0x80000000u | (uint32_t)function << 8 | (uint32_t)offset);
    return inl(PCI_DATA);
}

static void pci_enable(int function)
{
    uint32_t command = pci_read(function, 4) & 0xffff;
    outl(PCI_ADDRESS, 0x80000000u | (uint32_t)function << 8 | 4);
    outl(PCI_DATA, command | 7);
}

static void junk(uint16_t io)
{
    outb(io + 18, 0);
    outb(io + 18, 3);
    outw(io + 14, 0);
    outl(io + 8, QUEUE >> 12);
    *(volatile uint16_t *)(QUEUE + 16 * inw(io + 12) + 2) = 0xfff0;
    outb(io + 18, 7);
    outw(io + 16, 0);
}

void main(void)
{
    volatile uint8_t *panic = 0;
    uint16_t virtio[MAX];
    int count = 0;

    for (int function = 0; function < FUNCTIONS; function++) {
        uint32_t id = pci_read(function, 0), bar = pci_read(function, 0x10);
        if (id == 0x00111b36) {
            pci_enable(function);
            panic = (volatile uint8_t *)(bar & ~15u);
        }
        if ((id & 0xffff) == 0x1af4 && id >> 16 < 0x1040 && (bar & 1) && count < MAX) {
            pci_enable(function);
            virtio[count++] = bar & 0xfffc;
        }
    }
    say("MICA FLOOD panic ");
    say(panic ? "yes" : "no");
    say(" virtio ");
    say(count ? "yes" : "no");
    say("\n");
    for (uint32_t round = 0;; round++) {
        for (int i = 0; panic && i < 50; i++)
            *panic = i % 10 ? 1 : 2;
        say("0123456789abcdef0123456789abcde\n");
        if (round % 4 == 0)
            for (int i = 0; i < count; i++)
                junk(virtio[i]);
    }
}
