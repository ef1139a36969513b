/*-------------------------------------------------------------------------
 *
 * retry.c
 *		When a failed run is tried again.
 *
 * A run is tried again as often as its task says, each time after a longer delay.
 * What fails because the server has no disk space, memory or connections left is
 * no fault of the task: it is tried again without being counted, for a while.
 *
 * A task that fails over and over is held back a little, whatever its delay.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* The part of a delay by which it may be shorter. */
#define RETRY_JITTER		0.1

/* From this many failed attempts on, the delay is this (us) at least. */
#define MANY_ATTEMPTS		10
#define MANY_ATTEMPTS_DELAY	USECS_PER_SEC

/* For so long (us) what fails by a shortage is not counted. */
#define SHORTAGE_PATIENCE	USECS_PER_HOUR

/*
 * Return whether an error says that the server is short of something.  Not if the
 * callback says so itself, with RAISE or plpy.error; what a language has caught and
 * passes on is the server's word.  And not a limit that somebody has set (53400).
 */
bool
retry_is_shortage(const ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_DISK_FULL && error->sqlerrcode != ERRCODE_OUT_OF_MEMORY &&
		error->sqlerrcode != ERRCODE_TOO_MANY_CONNECTIONS)
		return false;
	return error->funcname == NULL ||
		(strcmp(error->funcname, "exec_stmt_raise") != 0 && strcmp(error->funcname, "PLy_output") != 0);
}

/*
 * Find when a run that has failed by a shortage is tried again, without being
 * counted.  Return false if it has not, if that has gone on for too long, and for a
 * run by hand, which would keep those of the schedule waiting.  Since when it goes
 * on is kept in the alarm; the delays follow from that.
 */
bool
retry_outlast_shortage(const RunStart *start, const Failure *failure, AlarmRow *alarm,
					   TimestampTz *retry_at)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		lasted;
	int			delays = 0;

	if (!retry_is_shortage(failure->error) || start->extra)
	{
		ROW_SET_NULL(alarm, alarm_shortage_since);
		return false;
	}
	if (ROW_ISNULL(alarm, alarm_shortage_since))
	{
		ROW_SET(TimestampTz, alarm, alarm_shortage_since, now);
		failure_log_line(start, failure,
						 "It is tried again for an hour without being counted, after 1, 2, 4 ... 64 seconds.");
	}
	lasted = now - ROW_GET(TimestampTz, alarm, alarm_shortage_since);
	if (lasted >= SHORTAGE_PATIENCE)
		return false;

	/* the delays so far come to one second less than the next */
	while (process_backoff(delays) < PROCESS_MAX_BACKOFF &&
		   lasted + USECS_PER_SEC >= process_backoff(delays + 1))
		delays++;
	*retry_at = now + process_backoff(delays);
	return true;
}

/*
 * Find when a failed run is to be tried again.  Return false if it is not.  The
 * delay varies a little, so that tasks that failed together do not come back
 * together.  A recurring task's attempts end before its next time.
 */
bool
retry_next(const RunStart *start, TimestampTz *retry_at)
{
	double		delay;
	TimestampTz next;

	if (start->max_attempts > 0 && start->attempt >= start->max_attempts)
		return false;
	if (start->retry_delay == 0)
		delay = 0;				/* 0 times infinity, after many attempts */
	else
		delay = Min((double) start->retry_delay * pow(start->retry_backoff, start->attempt - 1),
					(double) start->retry_max_delay);
	delay *= 1 - RETRY_JITTER * pg_prng_double(&pg_global_prng_state);
	if (start->attempt >= MANY_ATTEMPTS)
		delay = Max(delay, (double) MANY_ATTEMPTS_DELAY);
	*retry_at = GetCurrentTimestamp() + (int64) delay;
	if (!start->recurring || start->lasting || start->no_grid != NULL)
		return true;

	/* one that is behind has until the first time that is still to come */
	return !calendar_next(&start->calendar, Max(start->scheduled_at, start->started_at), &next) ||
		*retry_at < next;
}
