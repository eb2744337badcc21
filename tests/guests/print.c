/* Prints what the variable GREETING has and its arguments in brackets, a line each. One argument alone is its exit code. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  if (getenv("GREETING")) puts(getenv("GREETING"));
  for (int i = 1; i < argc; i++) printf("[%s]\n", argv[i]);
  return argc == 2 ? atoi(argv[1]) : 0;
}
