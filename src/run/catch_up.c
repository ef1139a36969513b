/*-------------------------------------------------------------------------
 *
 * catch_up.c
 *		Times that have passed: whether a run is too late, for which times it
 *		stands, what comes next, and whether anything does.
 *
 * Runs go by this, and so do previews of them and the functions that add and
 * change tasks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "run/run.h"

/*
 * Return whether it is too late for this run.  That is asked once: a run that has
 * begun, and begins again, is never too late, whether that was an attempt that has
 * failed or has lost its worker.  The time of day may be beyond until, which bounds
 * the times that runs are for.
 */
bool
catch_up_is_missed(const RunStart *start)
{
	TimestampTz late_from = Max(start->scheduled_at, start->late_from);

	if (start->extra || start->attempt > 1 || start->late_from == DT_NOEND)
		return false;
	return start->scheduled_at > start->until ||
		(start->start_within >= 0 && start->started_at - late_from > start->start_within);
}

/*
 * Return the last time that a run, or a missed time, stands for.  With catch_up all
 * that is its own only; otherwise all times up to its start.  Of times that were
 * missed, those that may still start are left to come.
 */
static TimestampTz
catch_up_covered(const RunStart *start, bool missed)
{
	TimestampTz until = start->scheduled_at;

	if (start->catch_up != CATCH_UP_ALL)
		until = Max(until, start->started_at - (missed ? Max(start->start_within, 0) : 0));
	return until;
}

/*
 * Go on from one of the times that were missed together to the next.  Return false
 * if there is none.
 */
bool
catch_up_next_missed(const RunStart *start, TimestampTz *time)
{
	return start->recurring && !start->lasting && start->no_grid == NULL &&
		calendar_next(&start->calendar, *time, time) &&
		*time <= Min(catch_up_covered(start, true), start->until);
}

/* Return whether a task has had as many runs as it may have; 0 is any number. */
bool
catch_up_had_all_runs(int64 runs, int max_runs)
{
	return max_runs > 0 && runs >= max_runs;
}

/*
 * Return whether a task's times are over: its next one is after the last, or it has
 * run as often as it may.
 */
bool
catch_up_is_over(TimestampTz next, TimestampTz until, int64 runs, int max_runs)
{
	return next > until || catch_up_had_all_runs(runs, max_runs);
}

/*
 * Find the next time of a recurring task that has had so many runs.  Return false if
 * its times are over.
 */
bool
catch_up_next(const RunStart *start, bool missed, int64 runs, TimestampTz *next)
{
	return calendar_next(&start->calendar, catch_up_covered(start, missed), next) &&
		!catch_up_is_over(*next, start->until, runs, start->max_runs);
}
