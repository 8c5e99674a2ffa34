/* Loaded into QEMU before all else: names the threads of its virtual CPUs as Cloud Hypervisor
 * does, vcpu0, vcpu1, …; libvirt's driver finds them by that name (ch_monitor.c). */
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>

int pthread_setname_np(pthread_t thread, const char *name)
{
    char own[16];
    unsigned number;

    (void)thread; /* QEMU's threads name only themselves */
    if (sscanf(name, "CPU %u/", &number) == 1) {
        snprintf(own, sizeof(own), "vcpu%u", number);
        name = own;
    }
    return prctl(PR_SET_NAME, name, 0, 0, 0);
}
