/*-------------------------------------------------------------------------
 *
 * add_edges.c
 *		Writing what the tasks of a call run after.
 *
 * The tasks themselves are written, and all that is needed is locked (add_after.c).  An edge
 * to a one-off task that has failed is marked as it is written, and a task whose edges are
 * all marked need not wait.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/api.h"

/* An edge that a task has already. */
typedef struct OldEdge
{
	int64		parent;
	char	   *task_id;
	bool		over;			/* the parent has ended and is gone */
	bool		lost;			/* the parent was removed before that */
	EdgeRow		row;
} OldEdge;

/*
 * Note with a task that others run after it; its alarm is locked.  Return false if it is
 * gone, or another role's by now.
 */
static bool
add_edges_flag(Store *store, Oid owner, int64 id, AlarmRow *alarm)
{
	if (store_lock_alarm(store, id, alarm, LockWaitBlock) != TM_Ok ||
		ROW_GET(ObjectId, alarm, alarm_owner) != owner)
		return false;
	if (!ROW_IS_TRUE(alarm, alarm_followed))
	{
		ROW_SET(Bool, alarm, alarm_followed, true);
		store_update_alarm(store, alarm);
		CommandCounterIncrement();	/* it may be locked again */
	}
	return true;
}

/*
 * Write one edge, whose parent's alarm is given; NULL if the parent is new.  Return whether
 * it has ended already: it has failed.
 */
static bool
add_edges_insert(Store *store, int64 child, int64 parent, text *task_id, const AlarmRow *alarm)
{
	EdgeRow		edge;
	bool		failed = (alarm != NULL && !ROW_ISNULL(alarm, alarm_failed_at));

	edges_fill(&edge, child, parent, PointerGetDatum(task_id));
	if (failed)
	{
		ParentEnd	end = {.id = parent,.status = RUN_FAILED};

		if (!ROW_ISNULL(alarm, alarm_last_status))
			end.status = word_value(run_status_words, ROW_DATUM(alarm, alarm_last_status), RUN_FAILED);
		end.run_at = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
		if (!ROW_ISNULL(alarm, alarm_last_sqlstate))
			end.sqlstate = TextDatumGetCString(ROW_DATUM(alarm, alarm_last_sqlstate));
		if (!ROW_ISNULL(alarm, alarm_last_error))
			end.message = TextDatumGetCString(ROW_DATUM(alarm, alarm_last_error));
		followers_mark(&edge, &end, false);
	}
	edges_insert(store, &edge);
	return failed;
}

pg_noreturn static void
add_edges_gone(const text *task_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("task \"%s\" does not exist any more", text_to_cstring(task_id)),
			 errhint("It was removed, or has succeeded, in this moment.")));
}

/*
 * Write the edge to one parent.  Return false if there is none to wait for: one of a group
 * that is gone, or one of this call whose times are over.  Set ended if it has ended.
 */
static bool
add_edges_write_one(Store *store, const NewTask *child, const NewParent *parent, bool *ended)
{
	AlarmRow	alarm;
	int64		id = parent->task != NULL ? parent->task->row_id : parent->id;

	if (parent->task != NULL && parent->task->written == WRITTEN_NOT)
		return false;
	if (parent->task != NULL && parent->task->written == WRITTEN_NEW)
		*ended = add_edges_insert(store, child->row_id, id, parent->task_id, NULL);
	else if (add_edges_flag(store, child->spec.owner, id, &alarm))
		*ended = add_edges_insert(store, child->row_id, id, parent->task_id, &alarm);
	else if (parent->named || parent->task != NULL)
		add_edges_gone(parent->task_id);
	else
		return false;
	return true;
}

/* Note with a task that there is nothing left for it to run after. */
static void
add_edges_unflag(Store *store, int64 id)
{
	AlarmRow	alarm;

	CommandCounterIncrement();
	if (store_lock_alarm(store, id, &alarm, LockWaitBlock) != TM_Ok)
		return;
	ROW_SET_NULL(&alarm, alarm_follows);
	store_update_alarm(store, &alarm);
}

/* Write the edges of a task that is new, which waits. */
static void
add_edges_of_new(Store *store, const NewTask *task, MemoryContext scratch)
{
	int			written = 0;
	int			open = 0;
	MemoryContext old = MemoryContextSwitchTo(scratch);

	for (int i = 0; i < task->nparents; i++)
	{
		bool		ended;

		CHECK_FOR_INTERRUPTS();
		if (add_edges_write_one(store, task, &task->parents[i], &ended))
		{
			written++;
			open += !ended;
		}
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	if (written == 0)
		add_edges_unflag(store, task->row_id);
	if (open < task->nparents)
		ending_consider(store, task->row_id);
}

static int
old_edge_cmp(const void *a, const void *b)
{
	int64		x = ((const OldEdge *) a)->parent;
	int64		y = ((const OldEdge *) b)->parent;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* Read the edges that a task has, by the ids of the parents. */
static OldEdge *
add_edges_read(Store *store, int64 child, int *n)
{
	int			size = 16;
	OldEdge    *edges = palloc(size * sizeof(OldEdge));
	EdgeScan	scan;
	EdgeRow		row;

	*n = 0;
	edges_begin(store, &scan, child, PG_INT64_MAX, true);
	while (edges_next(&scan, &row))
	{
		OldEdge    *edge;

		if (*n == size)
		{
			size *= 2;
			edges = repalloc_huge(edges, size * sizeof(OldEdge));
		}
		edge = &edges[(*n)++];
		edge->parent = ROW_GET(Int64, &row, edge_parent);
		edge->task_id = TextDatumGetCString(ROW_DATUM(&row, edge_task_id));
		edge->over = ROW_IS_TRUE(&row, edge_gone) && !ROW_ISNULL(&row, edge_done_at);
		edge->lost = ROW_IS_TRUE(&row, edge_gone) && ROW_ISNULL(&row, edge_done_at);
		edge->row = row;
	}
	edges_end(&scan);
	qsort(edges, *n, sizeof(OldEdge), old_edge_cmp);
	return edges;
}

/*
 * Have a task that was replaced run after what it is to run after now.  What it has run
 * after before, and does still, keeps what has come of it.  Return whether the edges are
 * others than before, and how many there are.
 */
static bool
add_edges_replace(Store *store, const NewTask *task, int *n)
{
	int			nold;
	OldEdge    *old = add_edges_read(store, task->row_id, &nold);
	bool	   *wanted = palloc0((nold + 1) * sizeof(bool));
	bool		changed = false;

	*n = 0;
	for (int i = 0; i < task->nparents; i++)
	{
		const NewParent *parent = &task->parents[i];
		OldEdge		key = {.parent = parent->task != NULL ? parent->task->row_id : parent->id};
		OldEdge    *found = bsearch(&key, old, nold, sizeof(OldEdge), old_edge_cmp);
		bool		ended;

		if (found != NULL && found->lost)
		{
			if (parent->named)
				add_edges_gone(parent->task_id);
			continue;
		}
		if (found != NULL)
			wanted[found - old] = true;
		else if (add_edges_write_one(store, task, parent, &ended))
			changed = true;
		else
			continue;
		(*n)++;
	}

	/* of a group, those that were in it and have ended count, too */
	for (int i = 0; i < nold; i++)
	{
		if (wanted[i])
			continue;
		if (old[i].over && !task->nulls[ADD_AFTER_GROUP])
		{
			(*n)++;
			continue;
		}
		edges_delete(store, &old[i].row);
		changed = true;
	}
	return changed;
}

/* Write what a task that was replaced runs after, and whether it waits. */
static void
add_edges_of_replaced(Store *store, const NewTask *task)
{
	AlarmRow	alarm;
	TaskRow		row;
	TimestampTz was_due_at;
	int			n;
	bool		changed;
	bool		waited;
	bool		waits;

	CommandCounterIncrement();
	if (store_lock_alarm(store, task->row_id, &alarm, LockWaitBlock) != TM_Ok ||
		!store_get_task(store, task->row_id, &row))
		return;
	changed = add_edges_replace(store, task, &n);
	waited = !ROW_ISNULL(&alarm, alarm_waiting_since);
	waits = waited;
	if (task->in_vain)
		waits = true;
	else if (n == 0)
		waits = task->spec.lasting &&
			(waited || (!task->was_lasting && !ROW_IS_TRUE(&alarm, alarm_follows)));
	else if (changed || task->other_status)
		waits = true;
	if (changed || waits != waited)
	{
		was_due_at = change_due_at(&alarm);
		if (n > 0)
			ROW_SET(Bool, &alarm, alarm_follows, true);
		else
			ROW_SET_NULL(&alarm, alarm_follows);
		ROW_SET_NULL(&alarm, alarm_settled_from);
		if (!waits)
			ROW_SET_NULL(&alarm, alarm_waiting_since);
		else if (!waited)
		{
			ROW_SET(TimestampTz, &alarm, alarm_waiting_since, GetCurrentTimestamp());
			alarm_raise_revision(&alarm);
		}
		store_update_alarm(store, &alarm);
		change_note(&alarm, was_due_at);
		ending_moved(store, &alarm);
	}
	if (waits && (n > 0 || task->in_vain))
		ending_consider(store, task->row_id);
}

/* Have a task that is there wait for one of the call as well: 55000 if it does not wait. */
static void
add_edges_before(Store *store, const Before *before)
{
	NewTask    *task = before->task;
	AlarmRow	alarm;
	TaskRow		row;
	EdgeRow		edge;

	if (task->written == WRITTEN_NOT || task->written == WRITTEN_KEPT)
		return;
	if (task->written == WRITTEN_AGAIN)
		(void) add_edges_flag(store, task->spec.owner, task->row_id, &alarm);
	if (!before->unlocked)
	{
		if (store_lock_alarm(store, before->id, &alarm, LockWaitBlock) != TM_Ok ||
			ROW_GET(ObjectId, &alarm, alarm_owner) != task->spec.owner)
			add_edges_gone(cstring_to_text(before->task_id));
		if (ROW_ISNULL(&alarm, alarm_waiting_since) || !ROW_ISNULL(&alarm, alarm_failed_at) ||
			!ROW_IS_TRUE(&alarm, alarm_follows))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("task \"%s\" does not wait for others", before->task_id),
					 errhint("Only a task that was added with after or after_group, and still waits, can be made to wait for more.")));
		if (!ROW_IS_TRUE(&alarm, alarm_follows))
		{
			ROW_SET(Bool, &alarm, alarm_follows, true);
			store_update_alarm(store, &alarm);
			CommandCounterIncrement();	/* it may be locked again */
		}
	}
	if (!store_get_task(store, before->id, &row))
		return;
	if (task_is_lasting(&row) && !task->spec.recurring)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task \"%s\" recurs, and cannot run after one that runs once", before->task_id)));
	if (edges_get(store, before->id, task->row_id, &edge))
		return;
	edges_fill(&edge, before->id, task->row_id, PointerGetDatum(task->spec.task_id));
	edges_insert(store, &edge);
}

/* A task that is met while looking for a circle, and whether the look at it is over. */
typedef struct Met
{
	int64		id;
	bool		over;
} Met;

/* A task on the way that is looked at: what it runs after, and how much of that is done. */
typedef struct Step
{
	int64		id;
	int64	   *parents;
	int			n;
	int			next;
} Step;

/* Read what a task still runs after. */
static void
add_edges_read_parents(Store *store, Step *step)
{
	int			size = 8;
	EdgeScan	scan;
	EdgeRow		row;

	step->parents = palloc(size * sizeof(int64));
	step->n = step->next = 0;
	edges_begin(store, &scan, step->id, PG_INT64_MAX, false);
	while (edges_next(&scan, &row))
	{
		if (ROW_IS_TRUE(&row, edge_gone))
			continue;
		if (step->n == size)
		{
			size *= 2;
			step->parents = repalloc_huge(step->parents, size * sizeof(int64));
		}
		step->parents[step->n++] = ROW_GET(Int64, &row, edge_parent);
	}
	edges_end(&scan);
}

pg_noreturn static void
add_edges_refuse_circle(Store *store, int64 id)
{
	TaskRow		task;

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("task \"%s\" would wait for itself", store_get_task(store, id, &task) ?
					TextDatumGetCString(ROW_DATUM(&task, task_task_id)) : ""),
			 errhint("It runs after a task that runs after it, perhaps with others in between.")));
}

/*
 * Refuse a task that runs after itself, perhaps with others in between: 22023.  The way to
 * those may be a long one, so it is kept here and not on the stack.
 */
static void
add_edges_check_circle(Store *store, int64 id, HTAB *met)
{
	int			max = 64;
	int			depth = 0;
	Step	   *way = palloc(max * sizeof(Step));
	int64		next = id;

	for (;;)
	{
		bool		found;
		Met		   *entry = hash_search(met, &next, HASH_ENTER, &found);

		CHECK_FOR_INTERRUPTS();
		if (found && !entry->over)
			add_edges_refuse_circle(store, next);
		if (!found)
		{
			entry->over = false;
			if (depth == max)
			{
				max *= 2;
				way = repalloc_huge(way, max * sizeof(Step));
			}
			way[depth].id = next;
			add_edges_read_parents(store, &way[depth++]);
		}

		/* go on with the next parent of the last one that has any left */
		while (depth > 0 && way[depth - 1].next == way[depth - 1].n)
		{
			depth--;
			entry = hash_search(met, &way[depth].id, HASH_FIND, NULL);
			entry->over = true;
			pfree(way[depth].parents);
		}
		if (depth == 0)
			break;
		next = way[depth - 1].parents[way[depth - 1].next++];
	}
	pfree(way);
}

/* Look for circles that the call could have closed. */
static void
add_edges_check_circles(const Joining *join)
{
	Store	   *store = join->adding->store;
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(Met)};
	HTAB	   *met = NULL;
	ListCell   *cell;

	ctl.hcxt = CurrentMemoryContext;
	for (int i = 0; i < join->n; i++)
	{
		if (join->tasks[i].written == WRITTEN_NOT ||
			(!join->tasks[i].guarded && join->tasks[i].written != WRITTEN_AGAIN))
			continue;
		add_after_at(join->adding, &join->tasks[i]);
		if (met == NULL)
			met = hash_create("taskshed tasks met", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		add_edges_check_circle(store, join->tasks[i].row_id, met);
	}
	foreach(cell, join->befores)
	{
		const Before *before = lfirst(cell);

		if (met != NULL)
			add_edges_check_circle(store, before->id, met);
	}
}

/* Write what those tasks of a call run after that were just written. */
void
add_edges_write(Adding *adding, NewTask *tasks, int n)
{
	Store	   *store = adding->store;
	Joining    *join = adding->joining;
	MemoryContext scratch = NULL;
	ListCell   *cell;

	for (int i = 0; i < n; i++)
	{
		NewTask    *task = &tasks[i];

		add_after_at(adding, task);
		if (task->written == WRITTEN_NEW && task->nparents > 0)
		{
			if (scratch == NULL)
			{
				scratch = AllocSetContextCreate(CurrentMemoryContext, "taskshed edge",
												ALLOCSET_DEFAULT_SIZES);
				CommandCounterIncrement();
			}
			add_edges_of_new(store, task, scratch);
		}
		else if (task->written == WRITTEN_NEW && task->in_vain)
			ending_consider(store, task->row_id);
		else if (task->written == WRITTEN_AGAIN && task->rejoin)
			add_edges_of_replaced(store, task);
	}
	if (scratch != NULL)
		MemoryContextDelete(scratch);
	if (join == NULL)
		return;
	CommandCounterIncrement();
	foreach(cell, join->befores)
	{
		const Before *before = lfirst(cell);

		add_after_at(adding, before->task);
		add_edges_before(store, before);
	}
	CommandCounterIncrement();
	add_edges_check_circles(join);
}
