// tests/compile.c: the compile matrix. Programs as users may write them are generated, compiled by the compiler that
// make was given, linked and run; what must be refused is refused with the words that help. The quick start in
// zerocp.h and the C blocks of README.md are extracted and run too.
#include "harness/compiling.h"

// ---------------------------------------------------------------------------------------------------------------------
// Translation units

enum { HEADERS = 3, ALL_HEADERS = (1 << HEADERS) - 1 };

static const char *const headers[HEADERS] = {"zerocp_relptr.h", "zerocp_shm.h", "zerocp.h"};

// What calls a function of each header, in C as in C++, without another header.
static const char *const probes[HEADERS] = {
    "    if (zcp_status_name(ZCP_OK)[4] != 'O') return 1;\n"
    "    if (zcp_relptr_offset(zcp_relptr_make(3, 7)) != 7) return 2;\n",
    "    if (zcp_shm_unlink(\"zcpt-no-such-object\") != ZCP_ERR_NOT_FOUND) return 3;\n",
    "    zcp_config config = EMPTY;\n"
    "    if (zcp_config_add_pool(&config, 64, 1) != ZCP_OK) return 4;\n"
    "    if (zcp_config_total_bytes(&config, 0) == 0) return 5;\n",
};

static const int orders[6][HEADERS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

typedef struct unit {
    const char *prologue;
    int includes[2 * HEADERS + 1];                                 // numbers from 1, 0: the end
    const char *between;                                           // what stands before the last include
    const char *function;
} unit;

#define IMPLEMENT "#define ZEROCP_IMPLEMENTATION\n"
#define STATIC "#define ZEROCP_STATIC\n"

static void append(char *text, size_t bytes, const char *more) {
    size_t used = strlen(text);
    CHECK(used + strlen(more) < bytes);
    snprintf(text + used, bytes - used, "%s", more);
}

static void append_include(char *text, size_t bytes, int header) {
    append(text, bytes, "#include \"");
    append(text, bytes, headers[header]);
    append(text, bytes, "\"\n");
}

// Writes a unit that includes these headers and whose function calls something of each.
static void write_unit(const char *path, unit described) {
    char text[4096] = "";
    unsigned included = 0;
    append(text, sizeof text, described.prologue == NULL ? "" : described.prologue);
    for (int i = 0; described.includes[i] != 0; i++) {
        if (described.includes[i + 1] == 0 && described.between != NULL)
            append(text, sizeof text, described.between);
        append_include(text, sizeof text, described.includes[i] - 1);
        included |= 1u << (described.includes[i] - 1);
    }
    append(text, sizeof text, "#ifdef __cplusplus\n#define EMPTY {}\n#else\n#define EMPTY {0}\n#endif\n");
    append(text, sizeof text, described.function == NULL ? "int main(void)" : described.function);
    append(text, sizeof text, "\n{\n");
    for (int i = 0; i < HEADERS; i++)
        append(text, sizeof text, included >> i & 1 ? probes[i] : "");
    append(text, sizeof text, described.function == NULL ? "    return 0;\n}\n" : "    return OTHER;\n}\n");
    write_file(path, "%s", text);
}

#define SECOND_UNIT "int second(void);\n#define OTHER 0\nint second(void)"
#define FIRST_UNIT "int second(void);\n#define OTHER second()\nint main(void)"

static void compile_and_run(const char *compiler, const char *flags, const char *files) {
    must("%s %s %s -O0 -I%s -o program %s %s && ./program", compiler, flags, C_WARNINGS, SOURCE_DIR, files, LIBS);
}

static void compile_only(const char *compiler, const char *flags, const char *file) {
    must("%s %s %s -fsyntax-only -I%s %s", compiler, flags, C_WARNINGS, SOURCE_DIR, file);
}

// ---------------------------------------------------------------------------------------------------------------------
// The matrix

static void check_alone(const char *compiler, int header) {
    static const char *const standards[] = {"-std=c17", "-std=gnu11"};
    write_unit("with.c", (unit){.prologue = IMPLEMENT, .includes = {header + 1}});
    write_unit("without.c", (unit){.includes = {header + 1}});
    compile_and_run(compiler, "-std=c11", "with.c");
    compile_only(compiler, "-std=c11", "without.c");
    for (int i = 0; i < 2; i++) {
        compile_only(compiler, standards[i], "with.c");
        compile_only(compiler, standards[i], "without.c");
    }
}

static void check_each_alone(int header) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    check_alone(compiler, header);
    leave_directory();
}

TEST_WITH(compile_relptr_alone, .seconds = 120) {
    check_each_alone(0);
}

TEST_WITH(compile_shm_alone, .seconds = 120) {
    check_each_alone(1);
}

TEST_WITH(compile_zerocp_alone, .seconds = 120) {
    check_each_alone(2);
}

// Whether all is implemented is seen where the program is linked: in the order of the floors, and upside down.
static void check_order(const char *compiler, const int order[HEADERS], bool links) {
    int first = order[0] + 1, second = order[1] + 1, third = order[2] + 1;
    write_unit("order.c", (unit){.prologue = IMPLEMENT, .includes = {first, second, third}});
    write_unit("plain.c", (unit){.includes = {first, second, third}});
    if (links)
        compile_and_run(compiler, "-std=c11", "order.c");
    else
        compile_only(compiler, "-std=c11", "order.c");
    compile_only(compiler, "-std=c11", "plain.c");
}

TEST_WITH(compile_every_order, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    for (int i = 0; i < 6; i++)
        check_order(compiler, orders[i], i % 5 == 0);
    leave_directory();
}

TEST_WITH(compile_included_twice, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_unit("twice.c", (unit){.prologue = IMPLEMENT, .includes = {3, 3}});
    write_unit("plain.c", (unit){.includes = {3, 3}});
    write_unit("all.c", (unit){.prologue = IMPLEMENT, .includes = {1, 2, 3, 1, 2, 3}});
    compile_and_run(compiler, "-std=c11", "twice.c");
    compile_only(compiler, "-std=gnu11", "all.c");
    compile_only(compiler, "-std=c11", "plain.c");
    leave_directory();
}

// The macro comes after a first, plain include: libc's headers have been seen then, so the caller defines _GNU_SOURCE.
TEST_WITH(compile_implemented_later, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_unit("later.c", (unit){.includes = {3, 3}, .between = IMPLEMENT});
    write_unit("upwards.c", (unit){.prologue = IMPLEMENT, .includes = {1, 3}, .between = "#include <stdlib.h>\n"});
    compile_and_run(compiler, "-std=c11 -D_GNU_SOURCE", "later.c");
    compile_only(compiler, "-std=gnu11 -D_GNU_SOURCE", "later.c");
    compile_only(compiler, "-std=c11", "upwards.c");
    leave_directory();
}

TEST_WITH(compile_two_units, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_unit("second.c", (unit){.prologue = IMPLEMENT, .includes = {3}, .function = SECOND_UNIT});
    write_unit("first.c", (unit){.includes = {1, 2, 3}, .function = FIRST_UNIT});
    compile_and_run(compiler, "-std=c11", "first.c second.c");
    compile_and_run(compiler, "-std=gnu11 -fno-common", "second.c first.c");
    leave_directory();
}

TEST_WITH(compile_static, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_unit("second.c", (unit){.prologue = STATIC IMPLEMENT, .includes = {3}, .function = SECOND_UNIT});
    write_unit("first.c", (unit){.prologue = STATIC IMPLEMENT, .includes = {3}, .function = FIRST_UNIT});
    write_unit("low.c", (unit){.prologue = STATIC IMPLEMENT, .includes = {1}});
    compile_and_run(compiler, "-std=c11", "first.c second.c");
    compile_only(compiler, "-std=gnu11", "low.c");
    leave_directory();
}

// Some warnings need the optimiser's eyes.
TEST_WITH(compile_optimised, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_unit("fast.c", (unit){.prologue = IMPLEMENT, .includes = {3}});
    must("%s -std=c11 %s -O2 -DNDEBUG -I%s -o program fast.c %s && ./program", compiler, C_WARNINGS, SOURCE_DIR,
         LIBS);
    leave_directory();
}

// The branches for compilers without GNU C's extensions work, too. glibc's headers refuse gcc that does not say what it
// is, so clang plays that compiler.
TEST_WITH(compile_without_gnu_extensions, .seconds = 120) {
    enter_directory_to_run();
    write_unit("plain.c", (unit){.prologue = IMPLEMENT, .includes = {3}});
    bool there = system("command -v clang > /dev/null") == 0;
    if (there)
        must("clang -std=c11 -Wall -Wextra -U__GNUC__ -O2 -I%s -o program plain.c %s && ./program", SOURCE_DIR, LIBS);
    leave_directory();
    if (!there)
        test_skip("there is no clang");
}

// ---------------------------------------------------------------------------------------------------------------------
// A library that holds the implementation is loaded, used by threads that live on, and unloaded, again and again:
// nothing of it stays, and no end of a thread and no fork leads into it. Of one of its managers a handle is left.

static const char plugin_source[] =
    "#define ZEROCP_STATIC\n#define ZEROCP_IMPLEMENTATION\n#include \"zerocp.h\"\n"
    "int plugin_run(const char *name);\nint plugin_clean(const char *name);\n"
    "int plugin_clean(const char *name) { return zcp_manager_destroy(name) != ZCP_OK; }\n"
    "int plugin_run(const char *name)\n{\n"
    "    zcp_config config = {0};\n    zcp_manager *managers[3];\n    zcp_chunk chunk, left;\n"
    "    zcp_log_set_level(ZCP_LOG_OFF);\n"
    "    zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 100, .cache_chunks = 8});\n"
    "    for (int i = 0; i < 3; i++) {\n"
    "        zcp_manager_desc desc = {.name = name, .config = &config};\n"
    "        if (zcp_manager_open(&managers[i], &desc) != ZCP_OK) return 1;\n"
    "        if (zcp_chunk_allocate(managers[i], 60, &chunk) != ZCP_OK) return 2;\n"
    "        zcp_chunk_release(&chunk);\n    }\n"
    "    if (zcp_chunk_allocate(managers[0], 60, &left) != ZCP_OK) return 3;\n"
    "    for (int i = 0; i < 3; i++) zcp_manager_close(managers[i]);\n"
    "    return 0;\n}\n";

static const char plugin_host_source[] =
    "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <pthread.h>\n#include <stdio.h>\n#include <sys/wait.h>\n"
    "#include <unistd.h>\n"
    "static pthread_barrier_t barrier;\nstatic const char *name;\nstatic int (*run)(const char *), failed;\n"
    "static void *live_on(void *unused)\n{\n"
    "    failed |= run(name);\n"
    "    pthread_barrier_wait(&barrier);\n    pthread_barrier_wait(&barrier);\n"
    "    return unused;\n}\n"
    "static unsigned long pages(void)\n{\n"
    "    unsigned long mapped = 0;\n    FILE *statm = fopen(\"/proc/self/statm\", \"r\");\n"
    "    if (!statm || fscanf(statm, \"%%lu\", &mapped) != 1) failed = 1;\n"
    "    if (statm) fclose(statm);\n    return mapped;\n}\n"
    "static void cycle(const char *at_the_end)\n{\n"
    "    pthread_t thread;\n    int status = 1;\n"
    "    void *library = dlopen(\"./plugin.so\", RTLD_NOW | RTLD_LOCAL);\n"
    "    if (!library) { puts(dlerror()); failed = 1; return; }\n"
    "    *(void **)&run = dlsym(library, \"plugin_run\");\n"
    "    if (pthread_create(&thread, NULL, live_on, NULL) != 0) { failed = 1; return; }\n"
    "    pthread_barrier_wait(&barrier);\n"
    "    failed |= run(name);\n"
    "    *(void **)&run = at_the_end ? dlsym(library, at_the_end) : NULL;\n"
    "    if (run) failed |= run(name);\n"
    "    dlclose(library);\n"
    "    pid_t child = fork();\n    if (child == 0) _exit(0);\n"
    "    if (waitpid(child, &status, 0) != child || status != 0) failed = 1;\n"
    "    pthread_barrier_wait(&barrier);\n"
    "    pthread_join(thread, NULL);\n}\n"
    "int main(int argc, char **argv)\n{\n"
    "    name = argv[argc - 1];\n    pthread_barrier_init(&barrier, NULL, 2);\n"
    "    for (int i = 0; i < 10; i++) cycle(NULL);\n"
    "    unsigned long before = pages();\n"
    "    for (int i = 0; i < 100; i++) cycle(NULL);\n"
    "    unsigned long after = pages();\n"
    "    cycle(\"plugin_clean\");\n"
    "    if (after > before + 50) {\n"
    "        printf(\"%%lu pages mapped after 10 cycles, %%lu after 110\\n\", before, after);\n"
    "        failed = 1;\n    }\n"
    "    return failed;\n}\n";

TEST_WITH(compile_library_that_is_unloaded, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    write_file("plugin.c", "%s", plugin_source);
    write_file("host.c", plugin_host_source);
    must("%s -std=gnu11 %s -O1 -fPIC -shared -I%s -o plugin.so plugin.c %s", compiler, C_WARNINGS, SOURCE_DIR,
         LIBS);
    must("%s -std=gnu11 -O1 -o host host.c -pthread -ldl && ./host %s", compiler, test_instance());
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// C++

static void check_cxx(const char *compiler, const char *standard) {
    must("%s %s %s -O0 -I%s -o program main.cpp implementation.o %s && ./program", compiler, standard, CXX_WARNINGS,
         SOURCE_DIR, LIBS);
    for (int i = 0; i < HEADERS; i++)
        must("%s %s %s -fsyntax-only -I%s alone%d.cpp", compiler, standard, CXX_WARNINGS, SOURCE_DIR, i);
}

static void write_cxx_units(void) {
    write_unit("implementation.c", (unit){.prologue = IMPLEMENT, .includes = {3}, .function = SECOND_UNIT});
    write_unit("main.cpp", (unit){.prologue = "#include <cstdio>\n#include <vector>\n", .includes = {3, 2, 1}});
    write_unit("alone0.cpp", (unit){.includes = {1}});
    write_unit("alone1.cpp", (unit){.includes = {2}});
    write_unit("alone2.cpp", (unit){.includes = {3}});
}

TEST_WITH(compile_cxx, .seconds = 120) {
    static const char *const standards[] = {"-std=c++11", "-std=c++17", "-std=c++20"};
    enter_directory_to_run();
    const char *compiler = cxx_compiler(true);
    write_cxx_units();
    must("%s -std=c11 -O0 -I%s -c -o implementation.o implementation.c", callers_compiler(), SOURCE_DIR);
    for (int i = 0; i < 3; i++)
        check_cxx(compiler, standards[i]);
    leave_directory();
}

TEST(compile_cxx_implementation_is_refused) {
    enter_directory();
    const char *compiler = cxx_compiler(false);
    for (int i = 0; i < HEADERS; i++) {
        write_unit("main.cpp", (unit){.prologue = IMPLEMENT, .includes = {i + 1}});
        must_be_refused("put it into a .c file", "%s -std=c++17 -fsyntax-only -I%s main.cpp", compiler, SOURCE_DIR);
    }
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// What is refused, and what is visible

TEST(compile_libc_header_first_is_refused) {
    const char *compiler = callers_compiler();
    enter_directory();
    for (int i = 0; i < HEADERS; i++) {
        write_unit("late.c", (unit){.prologue = "#include <stdio.h>\n" IMPLEMENT, .includes = {i + 1}});
        must_be_refused("include zerocp first, or define _GNU_SOURCE", "%s -std=c11 -fsyntax-only -I%s late.c",
                        compiler, SOURCE_DIR);
        compile_only(compiler, "-std=c11 -D_GNU_SOURCE", "late.c");
    }
    leave_directory();
}

TEST(compile_misspelt_macros_are_refused) {
    static const char *const misspelt[] = {"ZCP_IMPLEMENTATION", "ZEROCP_IMPL", "ZEROCP_IMPLEMENT",
                                           "ZERO_CP_IMPLEMENTATION", "ZCP_STATIC", "ZCP_API", "ZCP_ASSERT"};
    const char *compiler = callers_compiler();
    enter_directory();
    write_unit("plain.c", (unit){.includes = {3}});
    for (size_t i = 0; i < sizeof misspelt / sizeof misspelt[0]; i++)
        must_be_refused("ZEROCP_", "%s -std=c11 -fsyntax-only -D%s -I%s plain.c", compiler, misspelt[i], SOURCE_DIR);
    leave_directory();
}

// What no warning finds: a plain object that is cast to an atomic one, and a cast through void * or a number that hides
// another cast from the warnings. -Wcast-align and -Wcast-qual are among C_WARNINGS, GCC's strict one is here.
TEST(compile_casts_hide_nothing) {
    static const char *const forbidden[] = {
        "\\((const |volatile )*_Atomic[^()]* \\*\\)[[:alnum:]_&(]",
        "\\([[:alnum:]_ ]+ \\*(const \\*)?\\)\\((const )?(void \\*|uintptr_t)\\)[^)]",
    };
    const char *compiler = callers_compiler();
    enter_directory();
    for (int i = 0; i < HEADERS; i++)                              // a number may become a void *
        for (int p = 0; p < 2; p++)
            must("! grep -nE '%s' %s/%s | grep -vF '(void *)(uintptr_t)'", forbidden[p], SOURCE_DIR, headers[i]);
    write_unit("casts.c", (unit){.prologue = IMPLEMENT, .includes = {3}});
    must("%s -Werror -Wcast-align=strict -fsyntax-only -x c /dev/null 2> /dev/null || exit 0; "
         "%s -std=c11 %s -Wcast-align=strict -O0 -I%s -c -o casts.o casts.c",
         compiler, compiler, C_WARNINGS, SOURCE_DIR);
    leave_directory();
}

static void compile_object(const char *compiler, const char *prologue) {
    write_unit("object.c", (unit){.prologue = prologue,
                                  .includes = {3},
                                  .function = "#define OTHER 0\nstatic int here(void);\n"
                                              "int zcp_test(void);\n"
                                              "int zcp_test(void) { return here(); }\n"
                                              "static int here(void)"});
    must("%s -std=c11 -O0 -I%s -c -o object.o object.c", compiler, SOURCE_DIR);
}

// Checks the names that the object defines; returns how many there are besides our own zcp_test.
static int check_exports(void) {
    char name[256], kind;
    int count = 0;
    must("nm -g -P --defined-only object.o");
    FILE *log = fopen("log", "r");
    CHECK(log != NULL);
    while (fscanf(log, "%255s %c%*[^\n]", name, &kind) == 2) {
        // GCC's own, hidden, in position-independent code for i386
        if (strncmp(name, "__x86.get_pc_thunk.", 19) == 0)
            continue;
        CHECK_MSG(strncmp(name, "zcp_", 4) == 0, "the implementation exports %s", name);
        CHECK_MSG(strncmp(name, "zcp_priv_", 9) != 0, "the implementation exports the private %s", name);
        CHECK_MSG(kind == 'T', "%s is not a function: %c", name, kind);
        count += strcmp(name, "zcp_test") != 0;
    }
    fclose(log);
    return count;
}

// The name of the function that a line declares as ZEROCP_API, or false.
static bool declared_function(const char *line, char name[128]) {
    const char *begin = strstr(line, "ZEROCP_API ");
    do
        begin = begin == NULL ? NULL : strstr(begin + 1, "zcp_");
    while (begin != NULL && begin[strspn(begin, "abcdefghijklmnopqrstuvwxyz_0123456789")] != '(');
    if (begin == NULL)
        return false;
    snprintf(name, 128, "%.*s", (int)strcspn(begin, "("), begin);
    return true;
}

static bool begins_implementation(const char *line) {
    return strstr(line, "#if defined(ZEROCP_IMPLEMENTATION) && !defined(ZEROCP_") == line;
}

// Checks that every declared function is in nm's output; returns how many there are.
static int check_declared(const char *header, const char *exported) {
    char name[128], wanted[160];
    int count = 0;
    char *text = read_source(header), *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL && !begins_implementation(line); line = strsep(&rest, "\n")) {
        if (!declared_function(line, name))
            continue;
        snprintf(wanted, sizeof wanted, "%s T ", name);
        CHECK_MSG(strstr(exported, wanted) != NULL, "%s declares %s, which is not there", header, name);
        count++;
    }
    free(text);
    return count;
}

TEST_WITH(compile_exports_declared_names_only, .seconds = 120) {
    const char *compiler = callers_compiler();
    enter_directory_to_run();
    compile_object(compiler, IMPLEMENT);
    int exported = check_exports(), declared = 0;
    char *names = read_file("log");
    for (int i = 0; i < HEADERS; i++)
        declared += check_declared(headers[i], names);
    free(names);
    CHECK_EQ(exported, declared);
    CHECK(declared > 40);
    compile_object(compiler, STATIC IMPLEMENT);
    CHECK_EQ(check_exports(), 0);
    compile_object(compiler, NULL);
    CHECK_EQ(check_exports(), 0);
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// What is documented

static void run_documented(const char *path, const char *more_files) {
    const char *compiler = callers_compiler();
    int lock = lock_documented();
    char *text = read_file(path);
    must("%s -std=c11 -Wall -Wextra -Wpedantic -Werror -O0 -I%s -o program %s %s %s", compiler, SOURCE_DIR, path,
         more_files, LIBS);
    must("timeout 20 ./program");
    check_nothing_left(text);
    free(text);
    close(lock);
}

// The lines between the two marks, each without its indentation of four.
static void extract_quick_start(FILE *out) {
    char *text = read_source("zerocp.h"), *rest = text, *line = strsep(&rest, "\n");
    while (line != NULL && strstr(line, ">>quickstart") == NULL)
        line = strsep(&rest, "\n");
    CHECK_MSG(line != NULL, "zerocp.h has no >>quickstart");
    for (line = strsep(&rest, "\n"); line != NULL && strstr(line, "<<quickstart") == NULL; line = strsep(&rest, "\n")) {
        CHECK_MSG(line[strspn(line, " ")] == 0 || strncmp(line, "    ", 4) == 0, "not indented by four: %s", line);
        fprintf(out, "%s\n", line[0] == 0 ? "" : line + 4);
    }
    CHECK_MSG(line != NULL, "zerocp.h has no <<quickstart");
    free(text);
}

TEST_WITH(compile_quick_start, .seconds = 120) {
    enter_directory_to_run();
    FILE *out = fopen("quick.c", "w");
    CHECK(out != NULL);
    extract_quick_start(out);
    CHECK(fclose(out) == 0);
    run_documented("quick.c", "");
    leave_directory();
}

// A block of README.md that begins ```c. `// file: NAME` in its first line names it; a named block without main is a
// unit of every program that follows and has no implementation of its own. `// fragment` in the first line: statements,
// to be compiled only; they may use a manager, a chunk, a token and a status.
typedef struct readme {
    char units[1024];
    int blocks, programs;
} readme;

static void compile_fragment(const char *block) {
    write_file("fragment.c",
               "#include \"zerocp.h\"\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
               "#include <unistd.h>\nzcp_manager *manager;\nzcp_chunk chunk;\nuint64_t token;\nzcp_status status;\n"
               "void fragment(void);\nvoid fragment(void)\n{\n%s}\n",
               block);
    must("%s -std=c11 -Wall -Wextra -Wno-unused -Werror -fsyntax-only -I%s fragment.c", callers_compiler(), SOURCE_DIR);
}

static void take_block(readme *found, const char *block) {
    char name[64] = "block.c";
    found->blocks++;
    if (strncmp(block, "// fragment", 11) == 0) {
        compile_fragment(block);
        return;
    }
    bool named = sscanf(block, "// file: %63s", name) == 1;
    bool program = strstr(block, "main(") != NULL, implements = strstr(block, "ZEROCP_IMPLEMENTATION") != NULL;
    write_file(name, "%s", block);
    CHECK_MSG(program || named, "neither a program, nor a // file: NAME, nor a // fragment: %.200s", block);
    if (program)
        run_documented(name, implements ? "" : found->units);
    else if (strstr(name, ".c") != NULL)
        snprintf(found->units + strlen(found->units), sizeof found->units - strlen(found->units), " %s", name);
    found->programs += program;
}

TEST_WITH(compile_readme, .seconds = 120) {
    static readme found;
    enter_directory_to_run();
    char *text = read_source("README.md"), *rest = text;
    for (char *begin = strstr(rest, "\n```c\n"); begin != NULL; begin = strstr(rest, "\n```c\n")) {
        char *end = strstr(begin + 6, "\n```");
        CHECK_MSG(end != NULL, "a block without an end: %.200s", begin);
        end[1] = 0;
        take_block(&found, begin + 6);
        rest = end + 2;
    }
    CHECK(found.programs > 0);
    free(text);
    leave_directory();
}
