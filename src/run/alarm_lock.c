/*-------------------------------------------------------------------------
 *
 * alarm_lock.c
 *		Locking an alarm at the end of a run.
 *
 * Whoever has the alarm at this moment is waited for.  All alarms that an end needs are
 * locked in the order of their task_ids, as all bulk calls do it; where that cannot be kept,
 * two can wait for each other.  Then it is the run that is tried again, not a session.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "run/run.h"

/* How often (ms) a run that waits looks for a deadlock. */
#define DEADLOCK_CHECK		10

/* In a worker; sessions look as they always do. */
static TimeoutId deadlock_check = MAX_TIMEOUTS;

/*
 * Get ready, once a worker.  The server looks for a deadlock once in each wait, and the
 * one who makes it complete finds it.  A run looks again and again instead,
 * so that it finds a deadlock first whoever has begun to wait last.
 */
void
alarm_lock_init(void)
{
	deadlock_check = RegisterTimeout(USER_TIMEOUT, CheckDeadLockAlert);
}

/*
 * Lock an alarm, whose place may be known from tids, and read its newest version.  Return
 * TM_Ok, or TM_Deleted if the task is gone.  If impatient, an error says that somebody else
 * has it.
 */
TM_Result
alarm_lock(Store *store, int64 id, const RowTids *tids, AlarmRow *alarm, bool impatient)
{
	static const RowTids unknown = {.known = false};
	TM_Result	result;

	if (tids == NULL)
		tids = &unknown;
	result = store_relock_alarm(store, id, tids, alarm, LockWaitSkip);
	if (result == TM_WouldBlock && impatient)
		elog(ERROR, "somebody is changing a task of a shared transaction");
	if (result == TM_WouldBlock)
	{
		bool		watch = (deadlock_check != MAX_TIMEOUTS);

		if (watch)
			enable_timeout_every(deadlock_check,
								 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DEADLOCK_CHECK),
								 DEADLOCK_CHECK);
		result = store_relock_alarm(store, id, tids, alarm, LockWaitBlock);
		if (watch)
			disable_timeout(deadlock_check, false);
	}
	return result;
}
