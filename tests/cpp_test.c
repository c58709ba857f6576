// tests/cpp_test.c: namespace zerocp, by a C++ compiler of the kind of make's: the programs of tests/cpp with and
// without exceptions, what must not compile, the C++ blocks of README.md and what they print, and the C++ program of
// tests/demo.
#include "harness/compiling.h"

#define STRICT CXX_WARNINGS " -Wshadow -Wconversion -Wold-style-cast -Wnon-virtual-dtor"

static void compile_implementation(void) {
    write_file("zerocp_unit.c", "#define ZEROCP_IMPLEMENTATION\n#include \"zerocp.h\"\n");
    must("%s -std=c11 -O0 -I%s -c -o implementation.o zerocp_unit.c", callers_compiler(), SOURCE_DIR);
}

// ---------------------------------------------------------------------------------------------------------------------
// Behaviour

static void run_with(const char *flags, const char *source) {
    enter_directory_to_run();
    const char *compiler = cxx_compiler(true);
    compile_implementation();
    must("%s %s %s -O0 -I%s -o program %s/tests/cpp/%s implementation.o %s", compiler, flags, STRICT, SOURCE_DIR,
         SOURCE_DIR, source, LIBS);
    must("timeout 20 ./program %s", test_instance());
    leave_directory();
}

TEST_WITH(cpp_behaves_in_cxx11, .seconds = 120) {
    run_with("-std=c++11", "behaviour.cpp");
}

TEST_WITH(cpp_behaves_in_cxx20, .seconds = 120) {
    run_with("-std=c++20", "behaviour.cpp");
}

TEST_WITH(cpp_behaves_without_exceptions, .seconds = 120) {
    run_with("-std=c++11 -fno-exceptions -fno-rtti", "behaviour.cpp");
}

TEST_WITH(cpp_grows_waits_and_watches, .seconds = 120) {
    run_with("-std=c++11", "growth.cpp");
}

TEST_WITH(cpp_grows_without_exceptions, .seconds = 120) {
    run_with("-std=c++11 -fno-exceptions -fno-rtti", "growth.cpp");
}

// Several units include it, one of them without exceptions; nothing is defined twice, and what is not called need not
// be there.
TEST_WITH(cpp_several_units, .seconds = 120) {
    enter_directory_to_run();
    const char *compiler = cxx_compiler(true);
    compile_implementation();
    write_file("first.cpp", "#include \"zerocp.h\"\n#include \"zerocp.h\"\nint second(zerocp::shared_chunk);\n"
                            "int main() { return second(zerocp::shared_chunk()); }\n");
    write_file("second.cpp",
               "#include \"zerocp.h\"\nint second(zerocp::shared_chunk);\n"
               "int second(zerocp::shared_chunk chunk) { return chunk.token() != 0 || zerocp::manager(); }\n");
    must("%s -std=c++11 %s -I%s -c first.cpp", compiler, STRICT, SOURCE_DIR);
    must("%s -std=c++17 %s -fno-exceptions -I%s -c second.cpp", compiler, STRICT, SOURCE_DIR);
    must("%s -o program first.o second.o implementation.o %s && ./program", compiler, LIBS);
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// What must not compile, each statement in a unit that compiles without it (NULL). One compiler does: the language says
// so.

typedef struct refusal {
    const char *flags, *statement;
} refusal;

static const refusal refusals[] = {
    {"-std=c++11", NULL},
    {"-std=c++11", "zerocp::manager copy(manager);"},
    {"-std=c++11", "zerocp::manager other; other = manager;"},
    {"-std=c++11", "zerocp::shared_chunk other(chunk.handle());"},
    {"-std=c++11", "zerocp::shared_chunk other = zcp_chunk();"},
    {"-std=c++11", "long sum = 1 + chunk; (void)sum;"},
    {"-std=c++11", "bool good = manager.check(); (void)good;"},
    {"-std=c++11", "if (manager.check().error()) return;"},
    {"-std=c++11", "chunk.data<std::string>();"},
    {"-std=c++11", "chunk.data<char *>();"},
    {"-std=c++11", "chunk.data<virtual_one>();"},
    {"-std=c++11 -fno-exceptions", NULL},
    {"-std=c++11 -fno-exceptions", "manager.check().value_or_throw();"},
    {"-std=c++17 -Werror", NULL},
    {"-std=c++17 -Werror", "manager.check();"},
    {"-std=c++17 -Werror", "manager.allocate(1);"},
    {"-std=c++17 -Werror", "chunk.detach();"},
};

static void write_statement(const char *statement) {
    write_file("statement.cpp",
               "#include \"zerocp.h\"\nstruct virtual_one { virtual int f(); }; void f(zerocp::manager &manager, "
               "zerocp::shared_chunk &chunk);\n"
               "void f(zerocp::manager &manager, zerocp::shared_chunk &chunk)\n{\n    %s\n    (void)manager;\n    "
               "(void)chunk;\n}\n",
               statement);
}

TEST_WITH(cpp_refuses_misuse, .seconds = 120) {
    enter_directory();
    const char *compiler = cxx_compiler(false);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const refusal *r = &refusals[i];
        write_statement(r->statement == NULL ? "" : r->statement);
        if (r->statement == NULL)
            must("%s %s -fsyntax-only -I%s statement.cpp", compiler, r->flags, SOURCE_DIR);
        else
            must_be_refused("statement.cpp:5:", "%s %s -fsyntax-only -I%s statement.cpp", compiler, r->flags,
                            SOURCE_DIR);
    }
    leave_directory();
}

// With ZEROCP_STATIC there is no such namespace, and the C declarations still compile.
TEST(cpp_not_with_static) {
    enter_directory();
    const char *compiler = cxx_compiler(false);
    write_file("static.cpp", "#define ZEROCP_STATIC\n#include \"zerocp.h\"\n");
    write_file("uses.cpp", "#define ZEROCP_STATIC\n#include \"zerocp.h\"\nusing namespace zerocp;\n");
    must("%s -std=c++11 -fsyntax-only -I%s static.cpp", compiler, SOURCE_DIR);
    must_be_refused("zerocp", "%s -std=c++11 -fsyntax-only -I%s uses.cpp", compiler, SOURCE_DIR);
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// README.md: a block that begins ```cpp is a program that is linked to zerocp_unit.c, or with `// fragment` in its
// first line statements, to be compiled only; they may use a manager and a token. What a program prints is what the
// README says after it: the indented lines after "It prints".

static void compile_cpp_fragment(const char *compiler, const char *block) {
    write_file("fragment.cpp",
               "#include \"zerocp.h\"\n#include <cstdio>\nvoid fragment(zerocp::manager &manager, uint64_t token);\n"
               "void fragment(zerocp::manager &manager, uint64_t token)\n{\n%s(void)manager, (void)token;\n}\n",
               block);
    must("%s -std=c++11 %s -Wno-unused -fsyntax-only -I%s fragment.cpp", compiler, CXX_WARNINGS, SOURCE_DIR);
}

static void check_printed(const char *rest) {
    char expected[4096] = "";
    const char *line = strstr(rest, "It prints\n\n");
    CHECK_MSG(line != NULL, "the README does not say what the program prints");
    for (line += strlen("It prints\n\n"); strncmp(line, "    ", 4) == 0; line = strchr(line, '\n') + 1)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%.*s\n",
                 (int)strcspn(line + 4, "\n"), line + 4);
    char *log = read_file("log");
    CHECK_STR(log, expected);
    free(log);
}

static void run_cpp_program(const char *compiler, const char *block, const char *rest) {
    write_file("block.cpp", "%s", block);
    must("%s -std=c++11 %s -O0 -I%s -o program block.cpp implementation.o %s", compiler, CXX_WARNINGS, SOURCE_DIR,
         LIBS);
    int lock = lock_documented();
    must("timeout 20 ./program");
    check_printed(rest);
    check_nothing_left(block);
    close(lock);
}

TEST_WITH(cpp_readme, .seconds = 120) {
    int programs = 0;
    enter_directory_to_run();
    const char *compiler = cxx_compiler(true);
    compile_implementation();
    char *text = read_source("README.md"), *rest = text;
    for (char *begin = strstr(rest, "\n```cpp\n"); begin != NULL; begin = strstr(rest, "\n```cpp\n")) {
        char *block = begin + 8, *end = strstr(block, "\n```");
        CHECK_MSG(end != NULL, "a block without an end: %.200s", begin);
        end[1] = 0;
        rest = end + 2;
        if (strncmp(block, "// fragment", 11) == 0)
            compile_cpp_fragment(compiler, block);
        else
            run_cpp_program(compiler, block, rest), programs++;
    }
    free(text);
    CHECK_EQ(programs, 1);
    leave_directory();
}

// ---------------------------------------------------------------------------------------------------------------------
// tests/demo/shared_chunk.cpp, as make has built it: in demo/ beside the directory of this program

static void must_exit(int code, const char *arguments, const char *output) {
    char command[512];
    snprintf(command, sizeof command, "timeout 30 ../../demo/shared_chunk %s > log 2>&1", arguments);
    CHECK_EQ(run_shell(command), code);
    char *log = read_file("log");
    CHECK_MSG(strcmp(log, output) == 0 || (code != 0 && strstr(log, output) != NULL), "expected:\n%s--- printed:\n%s",
              output, log);
    free(log);
}

TEST(cpp_demo) {
    char arguments[300];
    enter_directory();
    if (access("../../demo/shared_chunk", X_OK) != 0)
        skip("make has found no C++ compiler to build it with");
    snprintf(arguments, sizeof arguments, "--name %s --frames 500", test_instance());
    must_exit(0, arguments,
              "producer | sent 500 frames, copied none\nconsumer | received 500 frames, each as it was written\n"
              "Pool 0: chunk_size=4096, total=6, used=0, free=6\n");
    must_exit(1, "--name a/b", "producer: ZCP_ERR_INVALID_NAME: ");
    must_exit(2, "--frames many", "Try --help");
    must_exit(2, "--bogus", "Try --help");
    must_exit(2, "word", "unexpected argument \"word\"");
    leave_directory();
}
