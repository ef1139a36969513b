/*-------------------------------------------------------------------------
 *
 * spec_rows.c
 *		Between the parameters of add_task and the row of a task.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datum.h"

#include "api/api.h"

/* The column that has a parameter as it was given; 0 if there is none. */
static const AttrNumber row_columns[ADD_NPARAMS] = {
	[ADD_CALLBACK] = Anum_task_callback,
	[ADD_KWARGS] = Anum_task_kwargs,
	[ADD_EVERY] = Anum_task_every,
	[ADD_TASK_ID] = Anum_task_task_id,
	[ADD_GROUP_ID] = Anum_task_group_id,
	[ADD_CATCH_UP] = Anum_task_catch_up,
	[ADD_SCHEDULE] = Anum_task_schedule,
	[ADD_UNTIL] = Anum_task_until,
	[ADD_MAX_RUNS] = Anum_task_max_runs,
	[ADD_START_WITHIN] = Anum_task_start_within,
	[ADD_TIMEOUT] = Anum_task_timeout,
	[ADD_MAX_ATTEMPTS] = Anum_task_max_attempts,
	[ADD_RETRY_DELAY] = Anum_task_retry_delay,
	[ADD_RETRY_BACKOFF] = Anum_task_retry_backoff,
	[ADD_RETRY_MAX_DELAY] = Anum_task_retry_max_delay,
	[ADD_HISTORY] = Anum_task_history
};

/*
 * The parameters by which a task would have been added as its row says, without
 * those that are kept in another way: the time zone among them.
 */
void
spec_from_task(const TaskRow *task, Datum *values, bool *nulls)
{
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		AttrNumber	column = row_columns[i];

		nulls[i] = (column == 0 || task->nulls[column - 1]);
		values[i] = nulls[i] ? (Datum) 0 : task->values[column - 1];
	}
}

/*
 * Fills in what a TaskSpec says of a task's row: all but whose it is, its task_id
 * and its callback.
 */
void
spec_fill_task(TaskRow *row, const TaskSpec *spec)
{
	if (spec->group_id != NULL)
		ROW_SET(Pointer, row, task_group_id, spec->group_id);
	else
		ROW_SET_NULL(row, task_group_id);
	ROW_SET(Pointer, row, task_kwargs, spec->kwargs);
	ROW_SET(Pointer, row, task_run_type,
			cstring_to_text(spec->recurring ? "recurring" : "once"));
	if (spec->every != NULL)
		ROW_SET(Pointer, row, task_every, spec->every);
	else
		ROW_SET_NULL(row, task_every);
	if (spec->schedule != NULL)
		ROW_SET(Pointer, row, task_schedule, spec->schedule);
	else
		ROW_SET_NULL(row, task_schedule);
	ROW_SET(Pointer, row, task_timezone, cstring_to_text(spec->timezone));
	ROW_SET(Pointer, row, task_catch_up, cstring_to_text(word_text(catch_up_words, spec->catch_up)));

	for (int attnum = Anum_task_until; attnum <= Natts_task; attnum++)
	{
		if (attnum != Anum_task_catch_up)
			row->nulls[attnum - 1] = true;
	}
	if (spec->has_until)
		ROW_SET(TimestampTz, row, task_until, spec->until);
	if (spec->max_runs > 0)
		ROW_SET(Int32, row, task_max_runs, spec->max_runs);
	if (spec->start_within != NULL)
		ROW_SET(Pointer, row, task_start_within, spec->start_within);
	if (spec->timeout != NULL)
		ROW_SET(Pointer, row, task_timeout, spec->timeout);
	if (spec->max_attempts >= 0)
		ROW_SET(Int32, row, task_max_attempts, spec->max_attempts);
	if (spec->retry_delay != NULL)
		ROW_SET(Pointer, row, task_retry_delay, spec->retry_delay);
	if (spec->retry_backoff > 0)
		ROW_SET(Float8, row, task_retry_backoff, spec->retry_backoff);
	if (spec->retry_max_delay != NULL)
		ROW_SET(Pointer, row, task_retry_max_delay, spec->retry_max_delay);
	if (spec->history >= 0)
		ROW_SET(Pointer, row, task_history,
				cstring_to_text(word_text(history_words, spec->history)));
}

static bool
spec_same_column(const TaskRow *a, const TaskRow *b, AttrNumber column, TupleDesc desc)
{
	Form_pg_attribute att = TupleDescAttr(desc, column - 1);
	int			i = column - 1;

	if (a->nulls[i] || b->nulls[i])
		return a->nulls[i] && b->nulls[i];
	return datum_image_eq(a->values[i], b->values[i], att->attbyval, att->attlen);
}

/* Do two rows say the same of a task? */
bool
spec_same_task(const TaskRow *a, const TaskRow *b, TupleDesc desc)
{
	for (AttrNumber column = 1; column <= Natts_task; column++)
	{
		if (!spec_same_column(a, b, column, desc))
			return false;
	}
	return true;
}

/* Does it make a difference to a task's times in which time zone they are counted? */
static bool
spec_needs_zone(const TaskSpec *spec)
{
	if (spec->schedule != NULL)
		return spec->calendar.schedule.period == 0;
	return spec->every != NULL && (spec->every->month != 0 || spec->every->day != 0);
}

/* Does a task recur as before? */
bool
spec_same_times(const TaskSpec *spec, const TaskRow *new, const TaskRow *old, TupleDesc desc)
{
	return spec_same_column(new, old, Anum_task_every, desc) &&
		spec_same_column(new, old, Anum_task_schedule, desc) &&
		(spec_same_column(new, old, Anum_task_timezone, desc) || !spec_needs_zone(spec));
}

/* Is the last time of a task the same as before? */
bool
spec_same_until(const TaskRow *new, const TaskRow *old, TupleDesc desc)
{
	return spec_same_column(new, old, Anum_task_until, desc);
}
