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

/*
 * Get the parameters by which a task would have been added as its row says,
 * without those that are kept in another way: the time zone among them.
 */
void
spec_from_task(const TaskRow *task, Datum *values, bool *nulls)
{
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		AttrNumber	column = spec_params[i].column;

		nulls[i] = (column == 0 || task->nulls[column - 1]);
		values[i] = nulls[i] ? (Datum) 0 : task->values[column - 1];
	}
}

/*
 * Fill in what a TaskSpec says of a task's row: the parameters as they were given,
 * and what is made of those that are kept in another way.  Whose it is, its task_id
 * and callback the caller may know better.
 */
void
spec_fill_task(TaskRow *row, const TaskSpec *spec)
{
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		AttrNumber	column = spec_params[i].column;

		if (column == 0)
			continue;
		row->nulls[column - 1] = spec->nulls[i];
		row->values[column - 1] = spec->nulls[i] ? (Datum) 0 : spec->values[i];
	}
	ROW_SET(Pointer, row, task_kwargs, spec->kwargs);
	ROW_SET(Pointer, row, task_run_type,
			cstring_to_text(spec->recurring ? "recurring" : "once"));
	ROW_SET(Pointer, row, task_timezone, cstring_to_text(spec->timezone));
	ROW_SET(Pointer, row, task_catch_up, cstring_to_text(word_text(catch_up_words, spec->catch_up)));
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

/* Return whether a column is of what a task does, and not of whom that is told. */
static bool
spec_is_work(AttrNumber column)
{
	return column != Anum_task_description && column != Anum_task_on_failure &&
		column != Anum_task_notify && column != Anum_task_options;
}

/* Return whether two rows say the same of what a task does. */
bool
spec_same_work(const TaskRow *a, const TaskRow *b, TupleDesc desc)
{
	for (AttrNumber column = 1; column <= Natts_task; column++)
	{
		if (spec_is_work(column) && !spec_same_column(a, b, column, desc))
			return false;
	}
	return true;
}

/* Return whether two rows say the same of a task. */
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

/*
 * Return whether it makes a difference to a task's times in which time zone
 * they are counted.
 */
static bool
spec_needs_zone(const TaskSpec *spec)
{
	if (spec->schedule != NULL)
		return spec->calendar.schedule.period == 0;
	return spec->every != NULL && (spec->every->month != 0 || spec->every->day != 0);
}

/* Return whether a task recurs as before. */
bool
spec_same_times(const TaskSpec *spec, const TaskRow *new, const TaskRow *old, TupleDesc desc)
{
	return spec_same_column(new, old, Anum_task_every, desc) &&
		spec_same_column(new, old, Anum_task_schedule, desc) &&
		(spec_same_column(new, old, Anum_task_timezone, desc) || !spec_needs_zone(spec));
}

/* Return whether a task waits for the same ends of others as before. */
bool
spec_same_status(const TaskRow *new, const TaskRow *old, TupleDesc desc)
{
	return spec_same_column(new, old, Anum_task_after_status, desc);
}

/* Return whether the last time of a task is the same as before. */
bool
spec_same_until(const TaskRow *new, const TaskRow *old, TupleDesc desc)
{
	return spec_same_column(new, old, Anum_task_until, desc);
}
