/*-------------------------------------------------------------------------
 *
 * idle_exit.c
 *		When a scheduler leaves that has nothing to do.
 *
 * A hundred databases are not to cost a hundred processes that sleep.  So a
 * scheduler leaves when it has had nothing to do for
 * taskshed.scheduler_idle_timeout and nothing is due soon.  The database is
 * asleep then: its entry in shared memory says when the launcher is to start a
 * scheduler there, some time before the next task is due, and whoever commits
 * an earlier one brings that forward.  The decision is taken under the entry's
 * lock together with a last look for notes, so no commit is missed by both.
 *
 * What was done before counts, not what a scheduler itself has done.  One that
 * was sent only to look, after the server's start or for the housekeeping,
 * leaves at once, and one that comes in the place of another stays as long as
 * that would have.
 *
 * Where processes are scarce the launcher asks schedulers to leave for those of
 * other databases: at once those that have nothing to do for some seconds.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/*
 * Nobody leaves for less than this (us), or than the idle timeout: that would be
 * to start and end all the time.  If asked, for a second at least.
 */
#define MIN_ABSENCE			(10 * USECS_PER_SEC)
#define MIN_ABSENCE_ASKED	(IDLE_EXIT_LEAD + USECS_PER_SEC)

/* Nor for longer than this, whatever there is to do, nor for less because of housekeeping. */
#define MAX_ABSENCE			USECS_PER_DAY
#define MIN_HOUSEKEEPING	USECS_PER_MINUTE

/*
 * Return when the history and the tasks that have failed are to be looked
 * after again, if they have their bounds.
 */
static TimestampTz
idle_exit_housekeeping(int64 failed, TimestampTz now)
{
	int64		absence = (int64) ts_history_retention * USECS_PER_MINUTE / TS_HISTORY_PARTS;

	if (ts_failed_retention >= 0 && failed > 0)
		absence = Min(absence, (int64) ts_failed_retention * USECS_PER_MINUTE);
	return now + Min(Max(absence, MIN_HOUSEKEEPING), MAX_ABSENCE);
}

/*
 * Find out whether the scheduler can leave, and when, once in each of its
 * rounds, after the reports of workers and the notes.  wake is when it has
 * something to do, as far as it knows.
 */
void
idle_exit_look(TsDatabase *db, TimestampTz now, TimestampTz wake, bool held, IdleExit *idle)
{
	int64		timeout = (int64) ts_scheduler_idle_timeout * 1000;
	TimestampTz worked_at;
	TsGiveWay	give_way;

	idle->held = held;
	idle->wake = wake;
	idle->leave_at = DT_NOEND;
	idle->possible = wake > now + MIN_ABSENCE_ASKED && worker_pool_is_calm() && !lost_runs_exist() &&
		lookahead_is_calm(held || !ts_enabled, now, &idle->empty, &idle->locked_out);

	SpinLockAcquire(&db->mutex);
	if (!idle->possible || !worker_pool_is_empty() || db->worked_at > now)
		db->worked_at = now;
	db->resting = idle->possible;
	worked_at = db->worked_at;
	give_way = db->give_way;
	if (!idle->possible && give_way == TS_GIVE_WAY_IDLE)
		db->give_way = TS_STAY;
	SpinLockRelease(&db->mutex);
	if (idle->possible && give_way == TS_STAY)
	{
		bool		crowded;

		SpinLockAcquire(&ts_shared->mutex);
		crowded = ts_shared->crowded;
		SpinLockRelease(&ts_shared->mutex);
		if (crowded)
			shared_wake_launcher();
	}

	if (idle->possible && give_way != TS_STAY)
		idle->leave_at = now;
	else if (idle->possible && worker_pool_is_empty())
	{
		TimestampTz leave_at = Max(now, worked_at + timeout);

		if (wake > leave_at + Max(timeout, MIN_ABSENCE))
			idle->leave_at = leave_at;
	}
}

/*
 * Have the database sleep, and return true: the process must end then, and do
 * nothing more.  Return false if something has come up since the last look.
 */
bool
idle_exit_begin(TsDatabase *db, const IdleExit *idle)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		has_settings;
	bool		may;

	Assert(idle->possible);
	SpinLockAcquire(&db->mutex);
	has_settings = process_has_settings();
	may = (!db->noted && db->notes_head == db->notes_tail && db->reread_from == DT_NOEND &&
		   !db->outdated && has_settings && (idle->held || admission_is_current()));
	if (may)
	{
		database_set_state(db, TS_DB_ASLEEP);
		db->start_at = Min(idle->wake - IDLE_EXIT_LEAD, idle_exit_housekeeping(db->failed, now));
		db->next_wakeup = idle->wake;
		db->bad_starts = 0;
		db->empty = idle->empty;
		db->locked_out = idle->locked_out;
	}
	SpinLockRelease(&db->mutex);
	return may;
}
