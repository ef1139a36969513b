/*-------------------------------------------------------------------------
 *
 * view_writes.c
 *		What somebody is told who writes to our views.
 *
 * They cannot be written to, and the server's advice for such a view is to
 * make a trigger.  So each of them has INSTEAD OF triggers, which name the
 * functions to call.
 *
 * A trigger is for those who have the privilege, and for each row that there
 * is.  But nobody is granted the privilege: UPDATE or DELETE on a view lets its
 * holder LOCK it in any mode, and our tables with it.  Others would be told that
 * permission is denied, as if more privileges were what they lack.  So the same
 * is said before that is looked at, when such a command is to be planned.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api/api.h"

#define HINT_RUNS \
	"Runs are recorded as they end; taskshed.history_retention and taskshed.history_max_size say for how long they are kept."
#define HINT_STATUS \
	"It shows what goes on. taskshed.pause_tasks and the setting taskshed.enabled keep tasks from running."

/* What to do instead, by view and command. */
static const struct
{
	const char *view;
	const char *insert;
	const char *update;
	const char *delete;
}			view_hints[] =

{
	{"tasks",
		"Use taskshed.add_task or taskshed.add_tasks.",
		"Use taskshed.update_tasks, taskshed.update_execution_time, taskshed.pause_task, taskshed.resume_task or taskshed.set_owner, or replace the task with taskshed.add_task.",
	"Use taskshed.remove_task, taskshed.remove_tasks or, for all of your own, taskshed.remove_all_tasks."},
	{"callbacks",
		"Use taskshed.add_callback.",
		"Use taskshed.add_callback with replace_existing => true.",
	"Use taskshed.remove_callback."},
	{"runs", HINT_RUNS, HINT_RUNS, HINT_RUNS},
	{"status", HINT_STATUS, HINT_STATUS, HINT_STATUS}
};

static planner_hook_type prev_planner = NULL;

/* Raise the error, as the server does for views without a trigger: 55000. */
static void
view_writes_refuse(Oid relid, CmdType operation)
{
	char	   *view = get_rel_name(relid);
	const char *hint = NULL;

	const char *shown = view;

	/* two others show the tasks */
	if (strcmp(view, "task_details") == 0 || strcmp(view, "overview") == 0)
		shown = "tasks";
	for (int i = 0; hint == NULL && i < lengthof(view_hints); i++)
	{
		if (strcmp(shown, view_hints[i].view) == 0)
			hint = operation == CMD_INSERT ? view_hints[i].insert :
				operation == CMD_DELETE ? view_hints[i].delete : view_hints[i].update;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 operation == CMD_INSERT ? errmsg("cannot insert into view \"%s\"", view) :
			 operation == CMD_DELETE ? errmsg("cannot delete from view \"%s\"", view) :
			 errmsg("cannot update view \"%s\"", view),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/*
 * Return whether a view is one of ours.  That is looked up where it can be, not
 * for all others.
 */
static bool
view_writes_is_ours(Oid relid)
{
	Oid			namespace = get_rel_namespace(relid);

	return OidIsValid(namespace) &&
		(namespace == get_namespace_oid("taskshed", true) || namespace == store_schema()) &&
		store_is_member(relid);
}

/*
 * Return what a query does to its result relation.  For MERGE that is the first
 * of its actions that does anything, which is what the server names, too;
 * CMD_NOTHING if there is none.
 */
static CmdType
view_writes_operation(const Query *query)
{
	ListCell   *cell;

	if (query->commandType != CMD_MERGE)
		return query->commandType;
	foreach(cell, query->mergeActionList)
	{
		const MergeAction *action = lfirst_node(MergeAction, cell);

		if (action->commandType != CMD_NOTHING)
			return action->commandType;
	}
	return CMD_NOTHING;
}

/* Refuse a query that writes to one of our views, itself or in WITH. */
static void
view_writes_check_query(const Query *query)
{
	ListCell   *cell;

	if (query->resultRelation != 0)
	{
		const RangeTblEntry *target = rt_fetch(query->resultRelation, query->rtable);

		if (target->relkind == RELKIND_VIEW && view_writes_is_ours(target->relid) &&
			view_writes_operation(query) != CMD_NOTHING)
			view_writes_refuse(target->relid, view_writes_operation(query));
	}
	if (!query->hasModifyingCTE)
		return;
	foreach(cell, query->cteList)
	{
		view_writes_check_query(castNode(Query, lfirst_node(CommonTableExpr, cell)->ctequery));
	}
}

static PlannedStmt *
view_writes_planner(COMPAT_PLANNER_PARAMETERS)
{
	view_writes_check_query(query);
	return prev_planner ? prev_planner(COMPAT_PLANNER_ARGUMENTS) :
		standard_planner(COMPAT_PLANNER_ARGUMENTS);
}

/* The triggers of our views. */
PG_FUNCTION_INFO_V1(ts_cannot_write_view);
Datum
ts_cannot_write_view(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._cannot_write_view() must be called by its trigger")));
	view_writes_refuse(RelationGetRelid(trigger->tg_relation),
					   TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? CMD_INSERT :
					   TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? CMD_DELETE : CMD_UPDATE);
	PG_RETURN_POINTER(NULL);
}

/* Have the planner ask us: at the library's load, with shared memory. */
void
view_writes_init(void)
{
	prev_planner = planner_hook;
	planner_hook = view_writes_planner;
}
