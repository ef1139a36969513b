/*-------------------------------------------------------------------------
 *
 * bad_citizens.c
 *		Functions that do what no callback should, for 033_bad_citizens.pl and
 *		073_no_fault.pl.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

/* Writes to where nothing is. */
PG_FUNCTION_INFO_V1(bad_segfault);
Datum
bad_segfault(PG_FUNCTION_ARGS)
{
	*(volatile int *) 8 = 1;
	PG_RETURN_VOID();
}

/* Leaves without a word. */
PG_FUNCTION_INFO_V1(bad_underscore_exit);
Datum
bad_underscore_exit(PG_FUNCTION_ARGS)
{
	_exit(PG_GETARG_INT32(0));
}

/* Leaves as a program does that is not a server's process. */
PG_FUNCTION_INFO_V1(bad_exit);
Datum
bad_exit(PG_FUNCTION_ARGS)
{
	exit(PG_GETARG_INT32(0));
}

/* Listens to nobody as long as a file exists. */
PG_FUNCTION_INFO_V1(bad_loop);
Datum
bad_loop(PG_FUNCTION_ARGS)
{
	char	   *file = text_to_cstring(PG_GETARG_TEXT_PP(0));

	while (access(file, F_OK) == 0)
		usleep(1000);
	PG_RETURN_VOID();
}

/* Takes so many MB for as long as the process lives. */
PG_FUNCTION_INFO_V1(bad_leak);
Datum
bad_leak(PG_FUNCTION_ARGS)
{
	(void) MemoryContextAlloc(TopMemoryContext, (Size) PG_GETARG_INT32(0) * 1024 * 1024);
	PG_RETURN_VOID();
}

/* Fails as the server's own code does, with that SQLSTATE. */
PG_FUNCTION_INFO_V1(bad_error);
Datum
bad_error(PG_FUNCTION_ARGS)
{
	const char *code = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (strlen(code) != 5)
		elog(ERROR, "an SQLSTATE has five characters");
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4])),
			 errmsg("as the server says it")));
	PG_RETURN_VOID();
}
