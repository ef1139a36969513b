/*-------------------------------------------------------------------------
 *
 * api_owner.c
 *		Giving tasks to other roles: set_owner, and what DROP OWNED and
 *		REASSIGN OWNED do with a role's tasks and aliases.
 *
 * The revision is not raised: a run in progress goes on as the old owner, and
 * its outcome counts.  Only what runs next, and as whom, is another matter.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/api.h"

/*
 * Return what an alias stands for if the new owner's alias of that name is for another
 * function; NULL if it is the same.  Without either alias the name stays, too, for
 * somebody to define it.
 */
static text *
owner_adapt_alias(const TaskRow *task, Datum alias, Oid new_owner)
{
	char	   *name = TextDatumGetCString(alias);
	char	   *target = alias_find(ROW_GET(ObjectId, task, task_owner), name);
	char	   *new_target;

	if (target == NULL)
		return NULL;
	new_target = alias_find(new_owner, name);
	return new_target != NULL && strcmp(target, new_target) == 0 ? NULL : cstring_to_text(target);
}

/* Have a task that names aliases go on calling the functions that it has called. */
static void
owner_adapt_callback(TaskRow *task, Oid new_owner)
{
	text	   *target;

	if (ROW_GET(Bool, task, task_is_alias) &&
		(target = owner_adapt_alias(task, ROW_DATUM(task, task_callback), new_owner)) != NULL)
	{
		ROW_SET(Pointer, task, task_callback, target);
		ROW_SET(Bool, task, task_is_alias, false);
	}
	if (!ROW_ISNULL(task, task_on_failure) &&
		on_failure_is_alias(TextDatumGetCString(ROW_DATUM(task, task_on_failure))) &&
		(target = owner_adapt_alias(task, ROW_DATUM(task, task_on_failure), new_owner)) != NULL)
		ROW_SET(Pointer, task, task_on_failure, target);
}

/*
 * Write a task that has a new owner.  If that one has a task of the same
 * task_id, or somebody else adds it at this moment and commits, the index says
 * so: 42710.
 */
static void
owner_update_task(Store *store, TaskRow *task)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		store_update_task(store, task);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("role \"%s\" already has a task \"%s\"",
						NameStr(*ROW_GET(Name, task, task_owner_name)),
						TextDatumGetCString(ROW_DATUM(task, task_task_id))),
				 errhint("Remove one of the two tasks first.")));
	}
	PG_END_TRY();
}

/* Tasks on their way to another role. */
typedef struct OwnerChange
{
	Oid			new_owner;
	List	   *joined;			/* ids of those that run after others, or are
								 * run after */
} OwnerChange;

/* Give one task to another role: a TaskChange, whose arg points to an OwnerChange. */
static bool
owner_change(Store *store, AlarmRow *alarm, int64 arg)
{
	OwnerChange *owner_change = (OwnerChange *) (intptr_t) arg;
	Oid			new_owner = owner_change->new_owner;
	int64		id = ROW_GET(Int64, alarm, alarm_id);
	Name		owner_name = palloc(sizeof(NameData));
	TaskRow		task;

	if (ROW_GET(ObjectId, alarm, alarm_owner) == new_owner ||
		!store_get_task(store, id, &task))
		return false;
	owner_adapt_callback(&task, new_owner);
	namestrcpy(owner_name, GetUserNameFromId(new_owner, false));
	ROW_SET(ObjectId, &task, task_owner, new_owner);
	ROW_SET(Name, &task, task_owner_name, owner_name);
	owner_update_task(store, &task);

	ROW_SET(ObjectId, alarm, alarm_owner, new_owner);
	store_update_alarm(store, alarm);
	/* (if it is paused or has failed, the scheduler finds nothing to do) */
	notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at), id, new_owner);
	max_tasks_add(store, new_owner);
	if (ROW_IS_TRUE(alarm, alarm_follows) || ROW_IS_TRUE(alarm, alarm_followed))
	{
		int64	   *joined = palloc(sizeof(int64));

		*joined = id;
		owner_change->joined = lappend(owner_change->joined, joined);
	}
	return true;
}

/* Refuse to have two tasks of different owners run after each other: 55000. */
static void
owner_check_joined(Store *store, int64 child, int64 parent)
{
	TaskRow		first;
	TaskRow		second;

	if (!store_get_task(store, child, &first) || !store_get_task(store, parent, &second) ||
		ROW_GET(ObjectId, &first, task_owner) == ROW_GET(ObjectId, &second, task_owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("task \"%s\" runs after task \"%s\", and both must have the same owner",
					TextDatumGetCString(ROW_DATUM(&first, task_task_id)),
					TextDatumGetCString(ROW_DATUM(&second, task_task_id))),
			 errhint("Give all that run after each other in one call.")));
}

/* Check that those that are joined to tasks which have a new owner have it, too. */
static void
owner_check_change(Store *store, const OwnerChange *change)
{
	ListCell   *cell;

	foreach(cell, change->joined)
	{
		int64		id = *(int64 *) lfirst(cell);
		int			n;
		int64	   *children = edges_children(store, id, &n);
		EdgeScan	scan;
		EdgeRow		edge;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
			owner_check_joined(store, children[i], id);
		edges_begin(store, &scan, id, PG_INT64_MAX, true);
		while (edges_next(&scan, &edge))
			owner_check_joined(store, id, ROW_GET(Int64, &edge, edge_parent));
		edges_end(&scan);
	}
}

/* Give the tasks that are selected, or all of an owner, to another role. */
static int
owner_change_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id, Oid new_owner)
{
	OwnerChange change = {.new_owner = new_owner};
	int			changed = change_tasks(store, owner, task_ids, group_id, owner_change,
									   (int64) (intptr_t) &change);

	owner_check_change(store, &change);
	return changed;
}

PG_FUNCTION_INFO_V1(ts_set_owner);
Datum
ts_set_owner(PG_FUNCTION_ARGS)
{
	Oid			owner;
	Oid			new_owner;
	Store	   *store;
	int			changed;

	check_writable("taskshed.set_owner()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("new_owner must not be null"),
				 errhint("Give the role that the tasks are to belong to.")));
	/* an owner alone selects all of its tasks */
	if (PG_ARGISNULL(1) && PG_ARGISNULL(2) && PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task_ids, group_id or owner must be given"),
				 errhint("Name the tasks, as in task_ids => array['a', 'b'], or their group, as in group_id => 'g', or give all tasks of a role, as in owner => 'r'.")));
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(2))
		check_selector(PG_ARGISNULL(1), PG_ARGISNULL(2), NULL);
	owner = check_owner(PG_ARGISNULL(3) ? NULL : NameStr(*PG_GETARG_NAME(3)));
	new_owner = check_owner(NameStr(*PG_GETARG_NAME(0)));
	check_login(new_owner);

	store = store_open(RowExclusiveLock);
	changed = owner_change_tasks(store, owner,
								 PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1),
								 PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), new_owner);
	store_close(store, NoLock);
	check_warn_if_waiting();
	PG_RETURN_INT32(changed);
}

/*
 * Do our part of REASSIGN OWNED.  The aliases go first, so that tasks that name
 * them find them with their new owner.  The server has checked that the current
 * user has the privileges of both roles; to have somebody's tasks run as the
 * new one needs as much as set_owner asks for.
 */
void
owner_reassign_owned(Store *store, Oid owner, Oid new_owner)
{
	NameData	new_name;
	int			n;

	if (owner == new_owner)
		return;
	namestrcpy(&new_name, GetUserNameFromId(new_owner, false));
	(void) alias_move(owner, NULL, new_owner, &new_name);
	(void) store_find_owned(store, owner, &n);
	if (n == 0)
		return;
	check_may_act(new_owner);
	check_login(new_owner);
	(void) owner_change_tasks(store, owner, NULL, NULL, new_owner);
}

/* Do our part of DROP OWNED: the role's tasks and aliases go. */
void
owner_drop_owned(Store *store, Oid owner)
{
	(void) change_remove_tasks(store, owner, NULL, NULL);
	alias_drop_owned(owner);
}
