/*-------------------------------------------------------------------------
 *
 * rows.h
 *		The rows of our tables in memory.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_TABLES_ROWS_H
#define TASKSHED_TABLES_ROWS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/timestamp.h"

/* Columns of our tables; they are counted from 1. */
enum
{
	Anum_task_none,
#define TASK_COLUMN(name, type, nulls) Anum_task_##name,
#include "tables/task_columns.h"
#undef TASK_COLUMN
	Anum_task_end,
	Natts_task = Anum_task_end - 1
};

enum
{
	Anum_alarm_none,
#define ALARM_COLUMN(name, type, nulls) Anum_alarm_##name,
#include "tables/alarm_columns.h"
#undef ALARM_COLUMN
	Anum_alarm_end,
	Natts_alarm = Anum_alarm_end - 1
};

enum
{
	Anum_edge_none,
#define EDGE_COLUMN(name, type, nulls) Anum_edge_##name,
#include "tables/edge_columns.h"
#undef EDGE_COLUMN
	Anum_edge_end,
	Natts_edge = Anum_edge_end - 1
};

/* Longest task_id, group_id or alias, in characters. */
#define MAX_ID_LENGTH	255

/* A row of a table: its place and its columns. */
typedef struct TaskRow
{
	ItemPointerData tid;
	Datum		values[Natts_task];
	bool		nulls[Natts_task];
} TaskRow;

typedef struct AlarmRow
{
	ItemPointerData tid;
	Datum		values[Natts_alarm];
	bool		nulls[Natts_alarm];
} AlarmRow;

/* (The child runs after the parent.) */
typedef struct EdgeRow
{
	ItemPointerData tid;
	Datum		values[Natts_edge];
	bool		nulls[Natts_edge];
} EdgeRow;

/* The value of a column that is not null, as in ROW_GET(Int64, row, alarm_id). */
#define ROW_DATUM(row, column) \
	(AssertMacro(!(row)->nulls[Anum_##column - 1]), \
	 (row)->values[Anum_##column - 1])
#define ROW_GET(type, row, column) \
	DatumGet##type(ROW_DATUM(row, column))
#define ROW_ISNULL(row, column) \
	((row)->nulls[Anum_##column - 1])
#define ROW_SET(type, row, column, value) \
	((row)->nulls[Anum_##column - 1] = false, \
	 (row)->values[Anum_##column - 1] = type##GetDatum(value))
#define ROW_SET_NULL(row, column) \
	((row)->nulls[Anum_##column - 1] = true, \
	 (row)->values[Anum_##column - 1] = (Datum) 0)

/*
 * Return whether what has these recurs: a task's row, or what is to become one.
 * All who need to know whether a task recurs ask here.
 */
static inline bool
times_recur(bool every, bool schedule)
{
	return every || schedule;
}

/*
 * Return whether a task is a lasting one: it recurs and has no times of its own, but
 * waits for others.  (What somebody has written by hand is "recurring" or not.)
 */
static inline bool
task_is_lasting(const TaskRow *task)
{
	return !times_recur(!ROW_ISNULL(task, task_every), !ROW_ISNULL(task, task_schedule)) &&
		VARDATA_ANY(DatumGetPointer(ROW_DATUM(task, task_run_type)))[0] == 'r';
}

static inline bool
task_is_recurring(const TaskRow *task)
{
	return times_recur(!ROW_ISNULL(task, task_every), !ROW_ISNULL(task, task_schedule)) ||
		task_is_lasting(task);
}

/* Return whether a column that may be null is true. */
#define ROW_IS_TRUE(row, column) \
	(!ROW_ISNULL(row, column) && ROW_GET(Bool, row, column))

/*
 * Return whether a task is waiting for its time: also one that is paused, has failed or
 * waits for other tasks, if it was asked for a run beside its schedule.  The queue's index
 * has this condition.
 */
static inline bool
alarm_is_queued(const AlarmRow *alarm)
{
	return !ROW_ISNULL(alarm, alarm_resume_at) ||
		(ROW_ISNULL(alarm, alarm_paused_at) && ROW_ISNULL(alarm, alarm_failed_at) &&
		 ROW_ISNULL(alarm, alarm_waiting_since));
}

/*
 * Make what a run in progress will write come too late.  Revisions are compared
 * for being equal only, so it does not matter where they begin again.
 */
static inline void
alarm_raise_revision(AlarmRow *alarm)
{
	ROW_SET(Int64, alarm, alarm_revision,
			(int64) ((uint64) ROW_GET(Int64, alarm, alarm_revision) + 1));
}

/* Count a task's attempts, and its runs that were interrupted, anew. */
static inline void
alarm_count_anew(AlarmRow *alarm)
{
	ROW_SET(Int32, alarm, alarm_attempt, 0);
	ROW_SET(Int32, alarm, alarm_interruptions, 0);
	ROW_SET_NULL(alarm, alarm_restarts);
	ROW_SET_NULL(alarm, alarm_begun_at);
	ROW_SET_NULL(alarm, alarm_late_from);
	ROW_SET_NULL(alarm, alarm_shortage_since);
}

/* Fill in the alarm of a task that is new, and due at run_at. */
static inline void
alarm_begin(AlarmRow *alarm, int64 id, Oid owner, TimestampTz run_at, TimestampTz now)
{
	memset(alarm->nulls, true, sizeof(alarm->nulls));
	memset(alarm->values, 0, sizeof(alarm->values));
	ROW_SET(Int64, alarm, alarm_id, id);
	ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
	ROW_SET(TimestampTz, alarm, alarm_scheduled_at, run_at);
	ROW_SET(TimestampTz, alarm, alarm_anchor, run_at);
	/* not one that the last task of that id may have had, if ids come again */
	ROW_SET(Int64, alarm, alarm_revision, now);
	ROW_SET(Int64, alarm, alarm_run_count, 0);
	ROW_SET(ObjectId, alarm, alarm_owner, owner);
	ROW_SET(Int32, alarm, alarm_failures_in_row, 0);
	alarm_count_anew(alarm);
}

/*
 * Has a run begun for the time that a task waits for?  Whether it has failed or was
 * cut off, it begins again then, and is not late.  For a time that is to come only
 * a run by hand can have.
 */
static inline bool
alarm_has_begun(const AlarmRow *alarm)
{
	if (ROW_GET(TimestampTz, alarm, alarm_scheduled_at) > GetCurrentTimestamp())
		return false;
	return ROW_GET(Int32, alarm, alarm_attempt) > 0 ||
		!ROW_ISNULL(alarm, alarm_restarts) || !ROW_ISNULL(alarm, alarm_begun_at) ||
		(!ROW_ISNULL(alarm, alarm_late_from) &&
		 ROW_GET(TimestampTz, alarm, alarm_late_from) == DT_NOEND);
}

#endif							/* TASKSHED_TABLES_ROWS_H */
