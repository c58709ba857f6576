// tests/style_test.c: tests/style finds nothing wrong with the page of the sources, and finds whatever is wrong.
#include "harness/compiling.h"

#define RULE "// --------------------------------------------------\n"
#define TABLE "   >>one   the first section\n   >>two   the second section, see >>one\n"
#define ONE RULE "// >>one  The first\n" RULE "\n"
#define TWO RULE "// >>two  The second\n" RULE "\n"

static const char ten[] = "1234567890";

static void need_bash(void) {
    if (system("bash -c true") != 0)
        test_skip("there is no bash");
    enter_directory();
}

// What tests/style says of one file: these words and a status that is not 0, or nothing (NULL) and 0.
static void check_says(const char *name, const char *text, const char *words) {
    write_file(name, "%s", text);
    char command[4500];
    snprintf(command, sizeof command, "%s/tests/style \"$PWD/%s\" > log 2>&1", SOURCE_DIR, name);
    int code = run_shell(command);
    char *log = read_file("log");
    CHECK_MSG((code == 0) == (words == NULL), "status %d, %s", code, log);
    CHECK_MSG(words == NULL || strstr(log, words) != NULL, "no \"%s\" in: %s", words, log);
    CHECK_MSG(words != NULL || strstr(log, "FAILED") == NULL, "%s", log);
    free(log);
}

TEST(style_of_the_sources) {
    need_bash();
    must("%s/tests/style", SOURCE_DIR);
    leave_directory();
}

TEST(style_of_a_page) {
    char line[200] = "//";
    need_bash();
    while (strlen(line) < 112)
        strcat(line, ten);
    check_says("page.c", strncat(line, ten, 120 - strlen(line)), NULL);
    check_says("page.c", strcat(line, "1"), "page.c:1: 121 columns");
    check_says("page.c", "int a; \n", "page.c:1: a blank at the end");
    check_says("page.c", "int a(void) {\n}\n", NULL);
    check_says("page.c", "int a(void) {\n}\n\nint b(void) {\n} // b\n\n", NULL);
    check_says("page.c", "int a(void) { return 0; }\nint b(void) { return 0; }\n", NULL);
    check_says("page.c", "#if A\nint a(void) {\n}\n#else\nint a(void) {\n}\n#endif\n\nint b;\n", NULL);
    check_says("page.c", "struct a {\n};\nint b;\n", NULL);
    check_says("page.c", "int a(void) {\n}\nint b;\n", "page.c:2: no blank line");
    check_says("page.cpp", "int a(void) {\n} // a\nint b;\n", "page.cpp:2: no blank line");
    check_says("page.h", "#if A\nint a(void) {\n}\n#endif\nint b;\n", "page.h:3: no blank line");
    leave_directory();
}

TEST(style_of_sections) {
    need_bash();
    check_says("zerocp.h", TABLE ONE TWO, NULL);
    check_says("zerocp.h", "// QUICK START   >>start\n// <<start\n" TABLE ONE "// see >>two\n" TWO, NULL);
    check_says("zerocp.h", ONE TWO, "there is no table of contents");
    check_says("zerocp.h", TABLE ONE, "zerocp.h:2: no section is called >>two");
    check_says("zerocp.h", "   >>one   the first section\n" ONE TWO, "the table of contents does not name >>two");
    check_says("zerocp.h", TABLE "   >>one   again\n" ONE TWO, ">>one stands in the table of contents twice");
    check_says("zerocp.h", TABLE ONE TWO ONE, "the banner of >>one stands at");
    check_says("zerocp.h", TABLE ONE TWO "// see >>three\n", "zerocp.h:11: no section is called >>three");
    check_says("zerocp.h", TABLE ONE "// >>two  The second\n" RULE, "zerocp.h:7: no rule above");
    check_says("zerocp.h", TABLE ONE RULE "// >>two  The second\n", "zerocp.h:8: no rule below");
    check_says("zerocp.h", TABLE ONE RULE "// >>two\n" RULE, "a banner is");
    leave_directory();
}
