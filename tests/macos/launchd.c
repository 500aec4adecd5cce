/* launch_activate_socket(3) as launchd answers it: $LAUNCHD_SOCKET_<name> is the path of the socket. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int launch_activate_socket(const char *name, int **fds, size_t *count)
{
    char variable[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(variable, sizeof variable, "LAUNCHD_SOCKET_%s", name);
    const char *path = getenv(variable);
    if (!path)
        return ESRCH;
    if (!*path)
        return ENOENT;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0666) || listen(fd, 16))
        return errno;
    *fds = malloc(sizeof(int));
    (*fds)[0] = fd;
    *count = 1;
    return 0;
}
