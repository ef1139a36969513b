/*-------------------------------------------------------------------------
 *
 * sleep_until.c
 *		A function for the measurements: sleep until a time, to the microsecond.
 *
 * pg_sleep() sleeps whole milliseconds, so a loop with it can not be on time a
 * thousand times a second.  This is as cheap as sleeping can be: one system call.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(sleep_until);

Datum
sleep_until(PG_FUNCTION_ARGS)
{
	int64		us = PG_GETARG_TIMESTAMPTZ(0) +
	(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	struct timespec until = {us / USECS_PER_SEC, us % USECS_PER_SEC * 1000};

	while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == EINTR)
		CHECK_FOR_INTERRUPTS();
	PG_RETURN_VOID();
}
