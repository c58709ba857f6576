// tests/demo_test.c: runs the demo's programs, as built by make, and compares what they print line by line; kills,
// stops and misuses them. The runner checks that nothing is left in /dev/shm, and no process.
#include "harness/programs.h"

#ifndef TEST_SOURCE_DIR
#error "TEST_SOURCE_DIR is not defined: the Makefile gives it"
#endif

// ---------------------------------------------------------------------------------------------------------------------
// The lines

#define POOLS_FREE                                                                                                     \
    "Pool 0: chunk_size=256, total=100, used=0, free=100\n"                                                            \
    "Pool 1: chunk_size=1024, total=50, used=0, free=50\n"                                                             \
    "Pool 2: chunk_size=4096, total=20, used=0, free=20\n"                                                             \
    "Pool 3: chunk_size=16384, total=10, used=0, free=10\n"
#define POOLS_OF_SERVER                                                                                                \
    "Pool 0: chunk_size=256, total=100, used=1, free=99\n"                                                             \
    "Pool 1: chunk_size=1024, total=50, used=1, free=49\n"                                                             \
    "Pool 2: chunk_size=4096, total=20, used=1, free=19\n"                                                             \
    "Pool 3: chunk_size=16384, total=10, used=0, free=10\n"
#define POOLS_OF_BOTH                                                                                                  \
    "Pool 0: chunk_size=256, total=100, used=2, free=98\n"                                                             \
    "Pool 1: chunk_size=1024, total=50, used=2, free=48\n"                                                             \
    "Pool 2: chunk_size=4096, total=20, used=2, free=18\n"                                                             \
    "Pool 3: chunk_size=16384, total=10, used=0, free=10\n"

#define SERVER_BEGINS                                                                                                  \
    "Instance \"%s\": /%s_memory_management has 81920 bytes, /%s_memory_chunk has 323584 bytes\n"                      \
    "Initial state:\n" POOLS_FREE "Allocated 200 bytes: a chunk of 256 bytes\n"                                        \
    "Allocated 800 bytes: a chunk of 1024 bytes\n"                                                                     \
    "Allocated 3000 bytes: a chunk of 4096 bytes\n"                                                                    \
    "State with the server's chunks:\n" POOLS_OF_SERVER "Ready: the client may start. Ctrl-C stops the server.\n"
#define SERVER_SERVES                                                                                                  \
    "A client has come\n"                                                                                              \
    "Acquired the client's chunk: 2048 bytes\n"                                                                        \
    "Use count while both sides hold it: 2\n"                                                                          \
    "Use count after the client's release: 1\n"                                                                        \
    "List of 5 nodes: 1 2 3 4 5\n"                                                                                     \
    "Multiplied by 10 in place; sending the chunk back\n"                                                              \
    "The client has it; released\n"                                                                                    \
    "State after the client has left:\n" POOLS_OF_SERVER
#define SERVER_ENDS(signal_text)                                                                                       \
    "Stopping: " signal_text "\n"                                                                                      \
    "Final state:\n" POOLS_FREE "Closed and destroyed \"%s\"\n"

#define CLIENT_BEGINS                                                                                                  \
    "Waiting for the server\n"                                                                                         \
    "Attached to \"%s\"\n"                                                                                             \
    "State that the client sees:\n" POOLS_OF_SERVER "Allocated 100 bytes: a chunk of 256 bytes\n"                      \
    "Allocated 512 bytes: a chunk of 1024 bytes\n"                                                                     \
    "Allocated 2048 bytes: a chunk of 4096 bytes\n"                                                                    \
    "State with the client's chunks:\n" POOLS_OF_BOTH "Wrote and read back: Hello from client!\n"                      \
    "Wrote and read back: 0 100 200 300 400 500 600 700 800 900\n"                                                     \
    "Use count after allocation: 1\n"                                                                                  \
    "Use count with a clone: 2\n"                                                                                      \
    "Use count after the clone's release: 1\n"
#define CLIENT_ENDS                                                                                                    \
    "Sent a list; the server has acquired it\n"                                                                        \
    "Use count while both sides hold it: 2\n"                                                                          \
    "Got it back: 2048 bytes\n"                                                                                        \
    "Use count after the server's release: 1\n"                                                                        \
    "List of 5 nodes: 10 20 30 40 50\n"                                                                                \
    "Released all chunks\n"                                                                                            \
    "State at the end, as the server left it:\n" POOLS_OF_SERVER "Detached\n"

static program server, client;

static void start_server(const char *period) {
    START(&server, "server", "--name", test_instance(), "--period", period);
}

static void start_ready_server(void) {
    start_server("3600");
    await_text(&server, "Ready");
}

static void start_holding_client(void) {
    START(&client, "client", "--name", test_instance(), "--hold", "3600");
    await_text(&client, "Holding");
}

// ---------------------------------------------------------------------------------------------------------------------
// As it should go

TEST(demo_server_first) {
    const char *name = test_instance();
    start_ready_server();
    START(&client, "client", "--name", name);
    must_end(&client, 0);
    must_be(&client, text_of(CLIENT_BEGINS CLIENT_ENDS, name));
    await_text(&server, "State after the client has left:\n" POOLS_OF_SERVER);
    must_end_on(&server, SIGINT, 0);
    must_be(&server, text_of(SERVER_BEGINS SERVER_SERVES SERVER_ENDS("Interrupt"), name, name, name, name));
    must_be_gone(name);
}

TEST(demo_client_first) {
    const char *name = test_instance();
    START(&client, "client", "--name", name);
    await_text(&client, "Waiting for the server\n");
    test_sleep(50);
    start_server("3600");
    must_end(&client, 0);
    must_be(&client, text_of(CLIENT_BEGINS CLIENT_ENDS, name));
    await_text(&server, "State after the client has left:\n" POOLS_OF_SERVER);
    must_end_on(&server, SIGTERM, 0);
    must_be(&server, text_of(SERVER_BEGINS SERVER_SERVES SERVER_ENDS("Terminated"), name, name, name, name));
    must_be_gone(name);
}

TEST(demo_server_prints_periodically) {
    start_server("0.02");
    await_text(&server, "Ready");
    START(&client, "client", "--name", test_instance(), "--hold", "1");
    await_text(&server, "A client has come\n");
    await_text(&server, "\nState:\n" POOLS_OF_BOTH);
    must_end(&client, 0);
    must_say(&client, "Holding the chunks for a while\n");
    await_text(&server, "State after the client has left:\n");
    int before = test_count_of(server.text, "\nState:\n" POOLS_OF_SERVER);
    while (test_count_of(server.text, "\nState:\n" POOLS_OF_SERVER) < before + 3)
        CHECK(take(&server, 100));
    must_end_on(&server, SIGINT, 0);
}

// One after the other: each finds the pools as the server left them.
TEST(demo_three_clients_at_once) {
    static program clients[3];
    start_ready_server();
    for (int i = 0; i < 3; i++)
        START(&clients[i], "client", "--name", test_instance(), "--hold", "0.1");
    for (int i = 0; i < 3; i++)
        must_end(&clients[i], 0);
    while (test_count_of(server.text, "State after the client has left:\n" POOLS_OF_SERVER) < 3)
        CHECK(take(&server, 100));
    must_end_on(&server, SIGINT, 0);
}

TEST(demo_driver) {
    static program driver;
    START(&driver, "demo", "--name", test_instance(), "--hold", "0.05");
    must_end(&driver, 0);
    must_say(&driver, "\nThe demo went as it should");
    CHECK_EQ(test_count_of(driver.text, "\nclient | Wrote and read back: Hello from client!\n"), 2);
    CHECK_EQ(test_count_of(driver.text, "\nserver | Closed and destroyed "), 2);
    CHECK_EQ(test_count_of(driver.text, "\nserver | Stopping: Interrupt\n"), 1);
    CHECK_EQ(test_count_of(driver.text, "\nserver | Stopping: Terminated\n"), 1);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed and stopped

TEST(demo_client_killed) {
    start_ready_server();
    for (int round = 0; round < 5; round++) {
        start_holding_client();
        test_kill(client.pid);
        while (test_count_of(server.text, "State after the client has left:\n" POOLS_OF_SERVER) < round + 1)
            CHECK(take(&server, 100));
    }
    must_say(&server, "Took back 3 chunks from 1 client that died\n");
    START(&client, "client", "--name", test_instance());
    must_end(&client, 0);
    must_end_on(&server, SIGTERM, 0);
}

// At any moment: the pools are as the server left them, or the server says otherwise and ends with 1.
TEST_WITH(demo_client_killed_at_random, .seconds = 120) {
    start_ready_server();
    for (int round = 1; round <= 40; round++) {
        START(&client, "client", "--name", test_instance());
        usleep((useconds_t)test_random_below(4000));
        kill(client.pid, SIGKILL);
        end_of(&client);
        while (test_count_of(server.text, "A client has come\n")
               != test_count_of(server.text, "State after the client has left:\n" POOLS_OF_SERVER))
            CHECK(take(&server, 100));
    }
    START(&client, "client", "--name", test_instance());
    must_end(&client, 0);
    must_end_on(&server, SIGTERM, 0);
}

TEST(demo_server_killed) {
    start_ready_server();
    start_holding_client();
    test_kill(server.pid);
    must_end(&client, 1);
    must_say(&client, "client: the server has ended\n");
    START(&client, "client", "--name", test_instance());           // the instance is there, but no server
    test_sleep(50);
    start_server("3600");                                          // takes the instance over, and all is free
    must_end(&client, 0);
    must_end_on(&server, SIGINT, 0);
    must_say(&server, "Initial state:\n" POOLS_FREE);
    must_be_gone(test_instance());
}

TEST(demo_server_told_to_stop_while_serving) {
    start_ready_server();
    start_holding_client();
    must_end_on(&server, SIGINT, 0);
    must_say(&server, "Final state:\n" POOLS_FREE "Closed and destroyed ");
    must_end(&client, 1);
    must_say(&client, "client: the server has ended\n");
}

TEST(demo_server_stopped) {
    start_ready_server();
    test_stop(server.pid);
    START(&client, "client", "--name", test_instance(), "--wait", "0.2");
    must_end(&client, 1);
    must_say(&client, "client: the server did not answer in time");
    test_resume(server.pid);
    await_text(&server, "State after the client has left:\n" POOLS_OF_SERVER);
    must_end_on(&server, SIGINT, 0);
}

// Ctrl-C at a random moment after the start: the server cleans up, or had not begun.
TEST_WITH(demo_server_interrupted_at_random, .seconds = 120) {
    for (int round = 0; round < 60; round++) {
        start_server("3600");
        usleep((useconds_t)test_random_below(3000));
        CHECK(kill(server.pid, round % 2 == 0 ? SIGINT : SIGTERM) == 0);
        int status = end_of(&server);
        CHECK_MSG(WIFSIGNALED(status) ? server.length == 0 : WEXITSTATUS(status) == 0, "status %x:\n%s",
                  (unsigned)status, server.text);
        must_be_gone(test_instance());
    }
}

// A server that is killed at a random moment leaves what the next one takes over.
TEST_WITH(demo_server_killed_at_random, .seconds = 120) {
    for (int round = 0; round < 40; round++) {
        start_server("3600");
        usleep((useconds_t)test_random_below(3000));
        kill(server.pid, SIGKILL);
        end_of(&server);
    }
    start_ready_server();
    must_end_on(&server, SIGINT, 0);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// The driver ends and leaves nothing, whatever becomes of its two programs, or of itself

static pid_t pid_in(program *driver, const char *who) {
    char start_line[64];
    snprintf(start_line, sizeof start_line, "%s | starts (pid ", who);
    await_text(driver, start_line);
    return (pid_t)atol(strstr(driver->text, start_line) + strlen(start_line));
}

static void disturb_driver(const char *who, int signal_number, const char *complaint) {
    static program driver;
    START(&driver, "demo", "--name", test_instance(), "--hold", "3600", "--timeout", "3");
    pid_t pid = pid_in(&driver, who);
    await_text(&driver, "client | Holding");
    uint64_t begun = test_now();
    CHECK(kill(pid, signal_number) == 0);
    must_end(&driver, 1);
    CHECK_MSG(test_now() - begun < UINT64_C(10000000000), "the driver took too long");
    must_say(&driver, complaint);
    CHECK(kill(pid, 0) != 0);
    must_be_gone(test_instance());
}

TEST(demo_driver_client_killed) {
    disturb_driver("client", SIGKILL, "demo: the client was ended by a signal: Killed\n");
}

TEST(demo_driver_client_stopped) {
    disturb_driver("client", SIGSTOP, "demo: the client did not end\n");
}

TEST(demo_driver_server_killed) {
    disturb_driver("server", SIGKILL, "demo: the client ended with status 1\n");
}

TEST(demo_driver_server_stopped) {
    disturb_driver("server", SIGSTOP, "demo: the time is over\n");
}

TEST(demo_driver_interrupted) {
    static program driver;
    START(&driver, "demo", "--name", test_instance(), "--hold", "3600");
    await_text(&driver, "client | Holding");
    must_end_on(&driver, SIGINT, 1);
    must_say(&driver, "demo: stopped: Interrupt\n");
    must_be_gone(test_instance());
}

TEST(demo_driver_killed) {
    static program driver;
    START(&driver, "demo", "--name", test_instance(), "--hold", "3600");
    pid_t pid = pid_in(&driver, "server");
    await_text(&driver, "client | Holding");
    test_kill(driver.pid);
    for (int i = 0; i < 200 && kill(pid, 0) == 0; i++)
        test_sleep(20);
    CHECK(kill(pid, 0) != 0);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// Misused

static void must_refuse(const char *name, const char *option, const char *argument, int code, const char *complaint) {
    static program run;
    START(&run, name, option, argument);
    must_end(&run, code);
    must_say(&run, complaint);
}

TEST(demo_options) {
    static const char *const names[] = {"server", "client", "demo"};
    static program run;
    for (int i = 0; i < 3; i++) {
        START(&run, names[i], "--help");
        must_end(&run, 0);
        must_say(&run, "Usage: ");
        static const char *const getopts[][2] = {{"--bogus", "unrecognized option"},
                                                 {"--name", "requires an argument"}};
        for (int g = 0; g < 2; g++) {                              // each C library has its own words around these
            must_refuse(names[i], getopts[g][0], NULL, 2, getopts[g][1]);
            must_refuse(names[i], getopts[g][0], NULL, 2, "\nTry --help.\n");
        }
        must_refuse(names[i], "word", NULL, 2, "unexpected argument \"word\"; try --help\n");
    }
    must_refuse("server", "--period", "0", 2,
                "server: --period 0: a number of seconds from 0.01 to 86400 is expected\n");
    must_refuse("server", "--period", "soon", 2, "server: --period soon: a number of seconds");
    must_refuse("client", "--hold", "1x", 2, "client: --hold 1x: a number of seconds");
    must_refuse("client", "--wait", "nan", 2, "client: --wait nan: a number of seconds");
    must_refuse("demo", "--timeout", "", 2, "demo: --timeout : a number of seconds");
}

TEST(demo_names) {
    char longest[120], too_long[120];
    snprintf(too_long, sizeof too_long, "%s\n", strerror(ENAMETOOLONG));
    memset(longest, 'n', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    must_refuse("server", "--name", "a/b", 1, "server: zcp_manager_open: ZCP_ERR_INVALID_NAME: ");
    must_refuse("server", "--name", longest, 1, too_long);
    must_refuse("client", "--name", "a/b", 1, "client: zcp_manager_open: ZCP_ERR_INVALID_NAME: ");
}

TEST(demo_client_without_server) {
    START(&client, "client", "--name", test_instance(), "--wait", "0.2");
    must_end(&client, 1);
    must_say(&client, "client: zcp_manager_open: ZCP_ERR_TIMEOUT: ");
    must_say(&client, "nobody created it within ");
}

TEST(demo_second_server) {
    static program second;
    start_ready_server();
    START(&second, "server", "--name", test_instance());
    must_end(&second, 1);
    must_say(&second, "another server of that name is running");
    START(&client, "client", "--name", test_instance());           // the first one is none the worse
    must_end(&client, 0);
    must_end_on(&server, SIGINT, 0);
}

// Somebody else holds a chunk: every figure is checked, so both programs notice.
TEST(demo_deviation) {
    zcp_manager *manager;
    zcp_chunk chunk;
    start_ready_server();
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING}));
    CHECK_OK(zcp_chunk_allocate(manager, 9000, &chunk));
    START(&client, "client", "--name", test_instance());
    must_end(&client, 1);
    must_say(&client, "client: the state above is not the expected one, which is:\n" POOLS_OF_SERVER);
    await_text(&server, "server: the state above is not the expected one, which is:\n" POOLS_OF_SERVER);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    must_end_on(&server, SIGINT, 1);
    must_be_gone(test_instance());
}

// An instance of that name with other pools is not touched while somebody has it open.
TEST(demo_other_instance) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    START(&server, "server", "--name", test_instance());
    must_end(&server, 1);
    must_say(&server, "server: zcp_manager_open: ZCP_ERR_CONFIG_MISMATCH: ");
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(demo_output_closed) {
    start_server("0.02");
    close(server.output);
    server.output = -1;
    CHECK_EQ(WEXITSTATUS(test_wait(server.pid)), 1);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// The client in Python does the same with the server, a program in C

#define CLIENT_IN_PYTHON                                                                                               \
    "Attached to \"%s\"; its state:\n" POOLS_OF_SERVER "Use count while both sides hold it: 2\n"                       \
    "Bytes that came back: 2048\n"                                                                                     \
    "Use count after the server's release: 1\n"                                                                        \
    "The list: [10, 20, 30, 40, 50]\n"                                                                                 \
    "It lies where it lay, so nothing was copied: True\n"                                                              \
    "Detached\n"

static char library[PATH_MAX];

static void need_python(void) {
    static const char probe[] = "import ctypes, sys; sys.exit(ctypes.sizeof(ctypes.c_void_p) != int(sys.argv[1]))";
    char pointer[8];
    build_path(library, sizeof library, "libzerocp.so");
    snprintf(pointer, sizeof pointer, "%zu", sizeof(void *));
    start_at(&client, "python3", (const char *[]){"python3", "-c", probe, pointer, NULL});
    bool installed = getenv("TEST_INSTALLED") != NULL;             // on CI, which installs it: then nothing is skipped
    if (end_of(&client) != 0 && !installed)
        test_skip("there is no python3 with ctypes and of this word size");
    if (access(library, R_OK) != 0 && !installed)
        test_skip("libzerocp.so was not built (make library)");
}

static void start_python(const char *option, const char *argument) {
    start_at(&client, "python3",
             (const char *[]){"python3", TEST_SOURCE_DIR "/tests/demo/client.py", "--name", test_instance(),
                              "--library", library, option, argument, NULL});
}

TEST(demo_python_client) {
    const char *name = test_instance();
    need_python();
    start_ready_server();
    start_python(NULL, NULL);
    must_end(&client, 0);
    must_be(&client, text_of(CLIENT_IN_PYTHON, name));
    await_text(&server, "State after the client has left:\n" POOLS_OF_SERVER);
    must_end_on(&server, SIGINT, 0);
    must_be(&server, text_of(SERVER_BEGINS SERVER_SERVES SERVER_ENDS("Interrupt"), name, name, name, name));
}

TEST(demo_python_client_killed) {
    need_python();
    start_ready_server();
    start_python("--hold", "3600");
    await_text(&client, "Holding");
    test_kill(client.pid);
    await_text(&server, "State after the client has left:\n" POOLS_OF_SERVER);
    must_say(&server, "Took back 1 chunks from 1 client that died\n");
    start_python(NULL, NULL);
    must_end(&client, 0);
    must_end_on(&server, SIGTERM, 0);
}

TEST(demo_python_client_without_server) {
    need_python();
    start_python("--wait", "0.2");
    must_end(&client, 1);
    must_say(&client, "client.py: zcp_manager_open: ZCP_ERR_TIMEOUT: ");
    must_say(&client, "nobody created it within 200 ms");
}

// ---------------------------------------------------------------------------------------------------------------------
// Started with all three standard streams closed: no socket and no segment gets the number of one.
static pid_t start_without_streams(const char *const *arguments) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "demo/%s", arguments[0]);
    build_path(path, sizeof path, name);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        execv(path, copied(arguments));
        _exit(127);
    }
    return pid;
}

static void await_null_streams(pid_t pid) {
    uint64_t since = test_now();
    for (int fd = -1; fd < 3;) {                                   // -1: until it executes the program
        char link[64], target[PATH_MAX] = "";
        snprintf(link, sizeof link, fd < 0 ? "/proc/%d/exe" : "/proc/%d/fd/%d", (int)pid, fd);
        if (readlink(link, target, sizeof target - 1) > 0 && strstr(target, fd < 0 ? "/demo/" : "/dev/null") != NULL)
            fd++;                                                  // the dynamic linker may have had that number before
        CHECK_MSG(test_now() - since < UINT64_C(20000000000), "descriptor %d leads to \"%s\"", fd, target);
    }
}

TEST(demo_programs_open_no_file_as_a_standard_stream) {
    // else /proc tells of an emulator, not of the program
    test_need("ptrace");
    const char *const waiting[] = {"client", "--name", test_instance(), NULL};
    const char *const serving[] = {"server", "--name", test_instance(), NULL};
    pid_t pid = start_without_streams(waiting);                    // for a server
    await_null_streams(pid);
    test_kill(pid);
    pid = start_without_streams(serving);
    await_null_streams(pid);
    CHECK_EQ(kill(pid, SIGTERM), 0);
    test_wait(pid);
}

// What recorder prints can be included

TEST(demo_recorder) {
    START(&client, "recorder", "a \"subject\" with \\");
    must_end(&client, 0);
    must_say(&client, ", \"a \\\"subject\\\" with \\\\\", ");
    CHECK_MSG(strncmp(client.text, "RECORDED(", 9) == 0, "%s", client.text);
    CHECK_STR(client.text + client.length - 3, "})\n");
    static const char *const helps[] = {"--help", "-h"}, *const wrong[] = {"--halp", "-x", "--", "-"};
    for (size_t i = 0; i < sizeof helps / sizeof helps[0]; i++) {
        START(&client, "recorder", helps[i]);
        must_end(&client, 0);
        CHECK_MSG(strncmp(client.text, "Usage: recorder SUBJECT\n", 24) == 0, "%s", client.text);
        CHECK(strstr(client.text, "RECORDED(") == NULL);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        START(&client, "recorder", wrong[i]);
        must_end(&client, 2);
        must_say(&client, "Try --help.");
    }
    START(&client, "recorder", NULL);
    must_end(&client, 2);
    START(&client, "recorder", "one", "two");
    must_end(&client, 2);
}
