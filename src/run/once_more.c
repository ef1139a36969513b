/*-------------------------------------------------------------------------
 *
 * once_more.c
 *		Having a task run once more, at the wish of somebody.
 *
 * A run in progress may have begun too early for who asks, so it is followed by another
 * one, and a run that is yet to begin serves all who have asked by then.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "run/run.h"

/* Return a time for a column that has to be another one than before. */
static TimestampTz
once_more_stamp(const AlarmRow *alarm, int attnum)
{
	TimestampTz now = GetCurrentTimestamp();

	return !alarm->nulls[attnum - 1] && DatumGetTimestampTz(alarm->values[attnum - 1]) == now ?
		now + 1 : now;
}

/*
 * Have a task, whose alarm is locked, run once beside its schedule, paused or not.  The
 * revision stays, so a run in progress ends as it would have, and this one comes after it.
 */
void
once_more_beside(Store *store, AlarmRow *alarm)
{
	TimestampTz run_at = once_more_stamp(alarm, Anum_alarm_run_at);

	if (ROW_ISNULL(alarm, alarm_resume_at))
		ROW_SET(TimestampTz, alarm, alarm_resume_at, ROW_GET(TimestampTz, alarm, alarm_run_at));
	ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
	store_update_alarm(store, alarm);
	notes_add(run_at, ROW_GET(Int64, alarm, alarm_id), ROW_GET(ObjectId, alarm, alarm_owner));
}

/*
 * Have a task, whose alarm is locked, run once more.  For a lasting one that runs after no
 * other, that is its run; for any other it is one beside the schedule.
 */
void
once_more_ask(Store *store, AlarmRow *alarm, const TaskRow *task)
{
	if (!task_is_lasting(task) || ROW_IS_TRUE(alarm, alarm_follows) ||
		!ROW_ISNULL(alarm, alarm_failed_at))
		once_more_beside(store, alarm);
	else if (!ROW_ISNULL(alarm, alarm_waiting_since))
	{
		waiting_begin(alarm, task);
		store_update_alarm(store, alarm);
		if (alarm_is_queued(alarm))
			notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at), ROW_GET(Int64, alarm, alarm_id),
					  ROW_GET(ObjectId, alarm, alarm_owner));
	}
	else
	{
		/* it is due or running: a run that begins later than this has seen it */
		ROW_SET(TimestampTz, alarm, alarm_asked_at, once_more_stamp(alarm, Anum_alarm_asked_at));
		store_update_alarm(store, alarm);
	}
}
