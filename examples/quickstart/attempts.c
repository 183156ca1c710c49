/*
 * Tries five things that an isolated program must not be able to do, and prints a line for each:
 *
 *     denied <tab> attempt <tab> error
 *
 * or `done` in place of `denied`. Exits with the number of attempts that succeeded.
 *
 * Arguments: a home directory, the name of a process of the host, and a TCP port of the host's loopback.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int done;

static void report(int succeeded, const char *what, const char *answer)
{
	done += succeeded != 0;
	printf("%s\t%s\t%s\n", succeeded ? "done" : "denied", what, answer);
}

static void read_home(const char *home)
{
	DIR *directory = opendir(home);
	report(directory != NULL, "read the home directory", directory ? home : strerror(errno));
	if (directory)
		closedir(directory);
}

/* Whether the process of that number has this name. */
static int has_name(const char *pid, const char *name)
{
	char path[300], comm[64] = "";
	snprintf(path, sizeof path, "/proc/%s/comm", pid);
	FILE *file = fopen(path, "r");
	if (!file)
		return 0;
	if (fgets(comm, sizeof comm, file))
		comm[strcspn(comm, "\n")] = 0;
	fclose(file);
	return strcmp(comm, name) == 0;
}

static void see_processes(const char *name)
{
	const char *what = "see the host's processes";
	DIR *proc = opendir("/proc");
	int seen = 0, found = 0;
	char answer[100];

	if (!proc) {
		report(0, what, strerror(errno));
		return;
	}
	for (struct dirent *entry; (entry = readdir(proc));) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		seen++;
		found |= has_name(entry->d_name, name);
	}
	closedir(proc);
	snprintf(answer, sizeof answer, "/proc has %d, %s of them the host's", seen, found ? "some" : "none");
	report(found, what, answer);
}

/* 0, or why nothing at that address can be reached. */
static int try_connect(int type, const char *host, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int error = 0, fd = socket(AF_INET, type, 0);

	inet_pton(AF_INET, host, &address.sin_addr);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static void reach_network(int port)
{
	/* A datagram socket asks for a route and sends nothing. */
	int outside = try_connect(SOCK_DGRAM, "192.0.2.1", 53);
	int host = try_connect(SOCK_STREAM, "127.0.0.1", port);
	char answer[200];

	snprintf(answer, sizeof answer, "192.0.2.1: %s; the host's port %d: %s", strerror(outside), port, strerror(host));
	report(!outside || !host, "reach the network", answer);
}

static void write_to_usr(void)
{
	const char *path = "/usr/written-by-attempts";
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);

	report(fd >= 0, "write to /usr", fd >= 0 ? path : strerror(errno));
	if (fd >= 0) {
		close(fd);
		unlink(path);
	}
}

static void become_root(void)
{
	int refused = setuid(0);

	report(!refused, "become root", refused ? strerror(errno) : "setuid(0) = 0");
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s HOME PROCESS PORT\n", argv[0]);
		return 64;
	}
	read_home(argv[1]);
	see_processes(argv[2]);
	reach_network(atoi(argv[3]));
	write_to_usr();
	become_root();
	return done;
}
